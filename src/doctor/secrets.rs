//! The secrets: long enough, made by chance, and the same on each node.

use std::{collections::BTreeSet, fmt::Write as _};

use aws_lc_rs::digest::{SHA256, digest};

use super::report::{Group, Report};
use crate::settings::{Secret, Settings};

/// As many bytes as the keys that are made of them have.
const BYTES_MIN: usize = 32;

/// Fewer different characters than this are a word or a pattern: 32 random hexadecimal digits have fewer than 8 once in a
/// hundred thousand times.
const DIFFERENT_MIN: usize = 8;

/// Parts of secrets that examples have.
const EXAMPLES: [&str; 6] = ["changeme", "change-me", "change_me", "example", "password", "secret"];

const MAKE: &str = "make one with `openssl rand -base64 32`";

pub(super) fn examine(settings: &Settings, report: &mut Report) {
    let mut group = report.group("secrets");
    let auth = &settings.auth;
    let in_cluster = settings.redis.url.is_some();
    for (name, secret) in [
        ("auth.jwt_secret", &auth.jwt_secret),
        ("auth.jwt_secret_previous", &auth.jwt_secret_previous),
        ("cluster.secret", &settings.cluster.secret),
        ("metrics.token", &settings.metrics.token),
    ] {
        if let Some(secret) = secret {
            examine_one(name, secret, in_cluster, &mut group);
        }
    }
    if auth.jwt_secret.is_none() {
        group.ok("auth.jwt_secret is generated, and kept in the data dir");
    }
    if auth.jwt_secret.is_some() && auth.jwt_secret == settings.cluster.secret {
        group.warn(
            "auth.jwt_secret and cluster.secret are the same",
            "make another: who signs tokens need not read voice",
        );
    }
}

fn examine_one(name: &str, secret: &Secret, in_cluster: bool, group: &mut Group<'_>) {
    let text = secret.expose();
    let lower = text.to_lowercase();
    if EXAMPLES.iter().any(|example| lower.contains(example)) {
        group.fail(format!("{name} looks like one of an example"), MAKE);
    } else if text.len() < BYTES_MIN {
        group
            .warn(format!("{name} has only {} bytes", text.len()), format!("{MAKE}: it then has {BYTES_MIN} and more"));
    } else if text.chars().collect::<BTreeSet<_>>().len() < DIFFERENT_MIN {
        group.warn(format!("{name} is made of very few different characters"), MAKE);
    } else {
        let same = if in_cluster { ": the same on every node" } else { "" };
        group.ok(format!("{name} has the fingerprint {}{same}", fingerprint(name, text)));
    }
}

/// Six digits that tell whether two nodes have the same, and next to nothing of what it is.
fn fingerprint(name: &str, secret: &str) -> String {
    let digest = digest(&SHA256, format!("antiphon {name} {secret}").as_bytes());
    digest.as_ref().iter().take(3).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn examined(jwt_secret: &str, cluster_secret: &str) -> Vec<(Verdict, String)> {
        let mut settings = Settings::default();
        settings.auth.jwt_secret = Some(Secret::new(jwt_secret));
        settings.cluster.secret = Some(Secret::new(cluster_secret));
        let mut report = Report::default();
        examine(&settings, &mut report);
        report.findings.into_iter().map(|finding| (finding.verdict, finding.found)).collect()
    }

    #[test]
    fn weak_secrets_are_told_from_good_ones_and_none_is_shown() {
        let good = "Zt4oQvTgu8mYw1xK0sLr2bNc6dPe9fHj";
        let found = examined("please-change-me-before-the-first-start", good);
        assert_eq!(found[0], (Verdict::Fail, "auth.jwt_secret looks like one of an example".to_owned()));
        assert_eq!(found[1].0, Verdict::Ok);
        assert!(!found[1].1.contains(&good[..4]));
        assert_eq!(examined("tooshort", good)[0].0, Verdict::Warn);
        assert_eq!(examined(&"ab".repeat(32), good)[0].0, Verdict::Warn);
        assert!(examined(good, good).iter().any(|(_, found)| found.contains("are the same")));
    }

    #[test]
    fn a_fingerprint_is_the_secrets_and_its_settings() {
        assert_eq!(fingerprint("a", "x"), fingerprint("a", "x"));
        assert_ne!(fingerprint("a", "x"), fingerprint("a", "y"));
        assert_ne!(fingerprint("a", "x"), fingerprint("b", "x"));
        assert_eq!(fingerprint("a", "x").len(), 6);
    }
}
