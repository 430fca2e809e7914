//! `--set PATH=VALUE`: any value of a scenario, named by where it stands.

use std::str::FromStr;

/// One value to put in place of another: `phases.0.duration=60s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    path: Vec<String>,
    value: toml::Value,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no = || format!("`{text}` is no PATH=VALUE; something like phases.0.duration=60s would do");
        let (path, value) = text.split_once('=').ok_or_else(no)?;
        let path: Vec<String> = path.trim().split('.').map(ToOwned::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(no());
        }
        // What is no value in TOML, like 60s, is a text.
        let value = format!("it = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("it"));
        Ok(Self { path, value: value.unwrap_or_else(|| value_text(text)) })
    }
}

fn value_text(assignment: &str) -> toml::Value {
    assignment.split_once('=').map_or("", |(_, value)| value.trim()).into()
}

impl Assignment {
    /// The value at `path`.
    #[must_use]
    pub fn new(path: &[&str], value: impl Into<toml::Value>) -> Self {
        Self { path: path.iter().map(|&step| step.to_owned()).collect(), value: value.into() }
    }

    /// Puts the value where it belongs; tables on the way there are made.
    ///
    /// # Errors
    /// When the path leads to something that has no such place.
    pub fn apply(&self, scenario: &mut toml::Table) -> Result<(), String> {
        let (first, rest) = self.path.split_first().ok_or("an empty path")?;
        let mut place = scenario.entry(first.clone()).or_insert_with(table);
        for step in rest {
            place = match place {
                toml::Value::Table(table) => table.entry(step.clone()).or_insert_with(self::table),
                toml::Value::Array(list) => {
                    let (count, index) = (list.len(), step.parse::<usize>().ok());
                    let found = index.and_then(|index| list.get_mut(index));
                    found.ok_or_else(|| {
                        format!("{}: `{step}` is none of the {count} there, counted from 0", self.name())
                    })?
                }
                _ => return Err(format!("{}: there is nothing below a value", self.name())),
            };
        }
        *place = self.value.clone();
        Ok(())
    }

    fn name(&self) -> String {
        self.path.join(".")
    }
}

fn table() -> toml::Value {
    toml::Value::Table(toml::Table::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, assignments: &[&str]) -> Result<toml::Table, String> {
        let mut table: toml::Table = text.parse().expect("TOML");
        for assignment in assignments {
            assignment.parse::<Assignment>()?.apply(&mut table)?;
        }
        Ok(table)
    }

    #[test]
    fn values_are_put_where_the_path_leads() {
        let assignments =
            ["seed=7", "phases.1.duration = 60s", "phases.0.impairment.loss=0.01", "faults=[\"1s kill 1\"]"];
        let table = set("seed = 1\n[[phases]]\nname = \"a\"\n[[phases]]\nduration = 3", &assignments).expect("set");
        let expected = "seed = 7\nfaults = [\"1s kill 1\"]\n[[phases]]\nname = \"a\"\nimpairment = { loss = 0.01 }\n\
                        [[phases]]\nduration = \"60s\"";
        assert_eq!(table, expected.parse::<toml::Table>().expect("TOML"));
    }

    #[test]
    fn a_path_that_leads_nowhere_says_so() {
        for (assignment, hint) in [
            ("seed", "would do"),
            ("a..b=1", "would do"),
            ("phases.2.name=x", "none of the 1"),
            ("phases.first.name=x", "none of the 1"),
            ("seed.more=1", "nothing below"),
        ] {
            let error = set("seed = 1\n[[phases]]\nname = \"a\"", &[assignment]).expect_err(assignment);
            assert!(error.contains(hint), "{assignment}: {error}");
        }
    }
}
