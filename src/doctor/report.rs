//! What the examination found, as a table for people and as JSON for scripts.

use std::fmt;

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, not for everyone or not for ever.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// The group of checks that it belongs to.
    pub group: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything that was found, in the order of looking.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Each thing.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The findings of one group, to be added one by one.
    pub(super) fn group(&mut self, group: &'static str) -> Group<'_> {
        Group { report: self, group }
    }

    /// How many have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether nothing fails.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }
}

/// Where one group's findings go.
pub(super) struct Group<'a> {
    report: &'a mut Report,
    group: &'static str,
}

impl Group<'_> {
    pub(super) fn ok(&mut self, found: impl Into<String>) {
        self.add(Verdict::Ok, found.into(), None);
    }

    pub(super) fn warn(&mut self, found: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Warn, found.into(), Some(fix.into()));
    }

    pub(super) fn fail(&mut self, found: impl Into<String>, fix: impl Into<String>) {
        self.add(Verdict::Fail, found.into(), Some(fix.into()));
    }

    fn add(&mut self, verdict: Verdict, found: String, fix: Option<String>) {
        self.report.findings.push(Finding { verdict, group: self.group, found, fix });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { verdict, group, found, fix } in &self.findings {
            let word = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            writeln!(f, "{word:<5} {group:<10} {found}")?;
            if let Some(fix) = fix {
                writeln!(f, "{:16} → {fix}", "")?;
            }
        }
        let [ok, warn, fail] = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(|verdict| self.count(verdict));
        write!(f, "{ok} ok, {warn} to look at, {fail} wrong")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_json() {
        let mut report = Report::default();
        let mut group = report.group("ports");
        group.ok("TCP 127.0.0.1:3000 is free");
        group.warn("one", "this");
        assert!(report.is_well());
        report.group("kernel").fail("two", "that");
        assert!(!report.is_well());
        let table = report.to_string();
        assert!(table.starts_with("ok    ports      TCP 127.0.0.1:3000 is free\nwarn  ports      one\n"), "{table}");
        assert!(
            table.ends_with("FAIL  kernel     two\n                 → that\n1 ok, 1 to look at, 1 wrong"),
            "{table}"
        );
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["findings"][2]["verdict"], "fail");
        assert_eq!(json["findings"][0].get("fix"), None);
    }
}
