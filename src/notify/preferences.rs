//! What somebody wants to be told and how, and when they want quiet.

use antiphon_core::gateway::NotificationKind;
use jiff::{Timestamp, Zoned, civil::Time, tz::TimeZone};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::store::Way;

/// The longest name of a time zone in bytes; the longest there is has 32.
const TIME_ZONE_BYTES_MAX: usize = 64;

/// Which ways notifications of one kind take. The list of notifications has all of them in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ways {
    /// Open sessions are told at once, also in quiet hours.
    pub gateway: bool,
    /// By mail, to a confirmed address.
    pub email: bool,
    /// By short message, to a confirmed number.
    pub sms: bool,
    /// To subscribed browsers.
    pub push: bool,
}

impl Default for Ways {
    fn default() -> Self {
        Self { gateway: true, email: true, sms: false, push: true }
    }
}

impl Ways {
    /// Whether a way outside is among them.
    #[must_use]
    pub const fn has(self, way: Way) -> bool {
        match way {
            Way::Email => self.email,
            Way::Sms => self.sms,
            Way::Push => self.push,
        }
    }
}

/// Each day from one time to another, over midnight where the first is later, nothing goes outside; it waits until they end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// `HH:MM`.
    #[schema(example = "22:00")]
    pub from: String,
    /// `HH:MM`.
    #[schema(example = "07:00")]
    pub to: String,
    /// The IANA name of the time zone that these are times of.
    #[schema(example = "Europe/Paris")]
    pub time_zone: String,
}

/// What somebody wants to be told and how. What is absent is as it is for those who never said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Preferences {
    /// A message names them.
    pub mention: Ways,
    /// A message answers theirs.
    pub reply: Ways,
    /// Somebody writes to them.
    pub direct_message: Ways,
    /// They are made a member of a channel.
    pub invitation: Ways,
    /// When nothing goes outside; null: always may.
    pub quiet_hours: Option<QuietHours>,
}

impl Preferences {
    /// Those that were kept as `document`; a document that cannot be read is as none.
    #[must_use]
    pub fn of_document(document: Option<&str>) -> Self {
        document.and_then(|document| serde_json::from_str(document).ok()).unwrap_or_default()
    }

    /// The ways of a kind.
    #[must_use]
    pub const fn ways(&self, kind: NotificationKind) -> Ways {
        match kind {
            NotificationKind::Mention => self.mention,
            NotificationKind::Reply => self.reply,
            NotificationKind::DirectMessage => self.direct_message,
            NotificationKind::Invitation => self.invitation,
        }
    }

    /// When the quiet hours end that `now` is in; `None` outside of them.
    #[must_use]
    pub fn quiet_until(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.quiet_hours.as_ref()?.end_after(now)
    }

    /// What is wrong with them.
    ///
    /// # Errors
    /// That, in words.
    pub fn check(&self) -> Result<(), String> {
        self.quiet_hours.as_ref().map_or(Ok(()), QuietHours::check)
    }
}

impl QuietHours {
    fn check(&self) -> Result<(), String> {
        let from = parse_time(&self.from).ok_or("quiet_hours.from must be a time such as 22:00")?;
        let to = parse_time(&self.to).ok_or("quiet_hours.to must be a time such as 07:00")?;
        if from == to {
            return Err("quiet_hours.from and quiet_hours.to must differ".to_owned());
        }
        if self.time_zone.len() > TIME_ZONE_BYTES_MAX || TimeZone::get(&self.time_zone).is_err() {
            return Err("quiet_hours.time_zone must be the IANA name of a time zone such as Europe/Paris".to_owned());
        }
        Ok(())
    }

    fn end_after(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let (from, to) = (parse_time(&self.from)?, parse_time(&self.to)?);
        let zone = TimeZone::get(&self.time_zone).ok()?;
        let now_us = i64::try_from(now.unix_timestamp_nanos() / 1_000).ok()?;
        let local: Zoned = Timestamp::from_microsecond(now_us).ok()?.to_zoned(zone.clone());
        let (date, clock) = (local.date(), local.time());
        let is_over_midnight = from > to;
        let is_inside = if is_over_midnight { clock >= from || clock < to } else { clock >= from && clock < to };
        if !is_inside {
            return None;
        }
        let day = if is_over_midnight && clock >= from { date.tomorrow().ok()? } else { date };
        // A time that the clocks skip is taken as the one after; of one that comes twice, the first.
        let end = day.to_datetime(to).to_zoned(zone).ok()?.timestamp();
        let end = OffsetDateTime::from_unix_timestamp_nanos(end.as_nanosecond()).ok()?;
        Some(end).filter(|end| *end > now)
    }
}

fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| -> Option<i8> {
        let is_plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { digits.parse().ok() } else { None }
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn moment(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).expect("a moment")
    }

    fn quiet(from: &str, to: &str, time_zone: &str) -> Preferences {
        let hours = QuietHours { from: from.to_owned(), to: to.to_owned(), time_zone: time_zone.to_owned() };
        Preferences { quiet_hours: Some(hours), ..Preferences::default() }
    }

    #[test]
    fn quiet_hours_end_where_their_time_zone_says() {
        for (from, to, zone, now, end) in [
            // Winter: one hour before UTC.
            ("22:00", "07:00", "Europe/Paris", "2026-01-10T20:59:00Z", None),
            ("22:00", "07:00", "Europe/Paris", "2026-01-10T21:00:00Z", Some("2026-01-11T06:00:00Z")),
            ("22:00", "07:00", "Europe/Paris", "2026-01-11T05:59:59Z", Some("2026-01-11T06:00:00Z")),
            ("22:00", "07:00", "Europe/Paris", "2026-01-11T06:00:00Z", None),
            // Within one day, on the other side of the world.
            ("09:00", "17:30", "Pacific/Auckland", "2026-07-01T00:00:00Z", Some("2026-07-01T05:30:00Z")),
            ("09:00", "17:30", "Pacific/Auckland", "2026-07-01T06:00:00Z", None),
            // The night in which the clocks go forward has an hour less, and 02:30 does not exist: it is 03:30.
            ("22:00", "07:00", "Europe/Paris", "2026-03-28T23:00:00Z", Some("2026-03-29T05:00:00Z")),
            ("22:00", "02:30", "Europe/Paris", "2026-03-28T23:00:00Z", Some("2026-03-29T01:30:00Z")),
            // In the other one 02:30 comes twice: the first counts.
            ("22:00", "02:30", "Europe/Paris", "2026-10-24T23:00:00Z", Some("2026-10-25T00:30:00Z")),
            ("22:00", "02:30", "Europe/Paris", "2026-10-25T01:10:00Z", None),
        ] {
            let preferences = quiet(from, to, zone);
            preferences.check().expect("right");
            assert_eq!(preferences.quiet_until(moment(now)), end.map(moment), "{from}-{to} {zone} at {now}");
        }
        assert_eq!(Preferences::default().quiet_until(moment("2026-01-10T23:00:00Z")), None);
    }

    #[test]
    fn what_is_no_time_or_zone_is_named() {
        for (preferences, named) in [
            (quiet("22", "07:00", "UTC"), "from"),
            (quiet("22:00", "24:00", "UTC"), "to"),
            (quiet("22:00", "7:00", "UTC"), "to"),
            (quiet("22:00", "+7:00", "UTC"), "to"),
            (quiet("22:00", "22:00", "UTC"), "differ"),
            (quiet("22:00", "07:00", "Mars/Olympus"), "time_zone"),
            (quiet("22:00", "07:00", ""), "time_zone"),
        ] {
            let wrong = preferences.check().expect_err("wrong");
            assert!(wrong.contains(named), "{wrong}");
        }
    }

    #[test]
    fn what_is_absent_is_as_usual() {
        let preferences = Preferences::of_document(Some(r#"{"mention": {"email": false}}"#));
        let mention = preferences.ways(NotificationKind::Mention);
        assert_eq!((mention.email, mention.push, mention.sms), (false, true, false));
        assert_eq!(preferences.ways(NotificationKind::Reply), Ways::default());
        assert_eq!(Preferences::of_document(Some("nonsense")), Preferences::default());
        serde_json::from_str::<Preferences>(r#"{"mentions": {}}"#).expect_err("misspelt");
        let kept = serde_json::to_string(&quiet("22:00", "07:00", "UTC")).expect("serialises");
        assert_eq!(Preferences::of_document(Some(&kept)), quiet("22:00", "07:00", "UTC"));
    }
}
