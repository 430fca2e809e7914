//! The types a setting may have: how each is read from TOML and from an environment variable, and written back.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use toml::de::DeValue;

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// What a reader of the documentation calls it.
    const KIND: &'static str;

    /// Reads it from the settings file.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;

    /// Reads it from an environment variable.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Writes it as TOML, secrets hidden; `None` when it is not set.
    fn to_toml(&self) -> Option<String>;
}

/// The sentence about a value of the wrong type.
fn expected(kind: &str, found: &DeValue<'_>) -> String {
    format!("must be {kind}, not a TOML {}", found.type_str())
}

/// `text` as a TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

macro_rules! number {
    ($($type:ty),+) => {$(
        impl Value for $type {
            const KIND: &'static str = "number";

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let Some(integer) = value.as_integer() else { return Err(expected("a whole number", value)) };
                <$type>::from_str_radix(integer.as_str(), integer.radix())
                    .map_err(|_| format!("must be a whole number from 0 to {}, not {}", <$type>::MAX, integer.as_str()))
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("must be a whole number from 0 to {}, not {text:?}", <$type>::MAX))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}
number!(u16, u32, u64);

impl Value for bool {
    const KIND: &'static str = "true or false";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| expected("true or false", value))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("must be true or false, not {text:?}")),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| expected("text in quotes", value))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

/// Types that are written as text, with their own grammar.
macro_rules! textual {
    ($($type:ty, $kind:literal, $parse:expr, $print:expr;)+) => {$(
        impl Value for $type {
            const KIND: &'static str = $kind;

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let text = value.as_str().ok_or_else(|| expected("text in quotes", value))?;
                Self::from_text(text)
            }

            fn from_text(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Result<Self, String> = $parse;
                parse(text)
            }

            fn to_toml(&self) -> Option<String> {
                let print: fn(&Self) -> String = $print;
                Some(quoted(&print(self)))
            }
        }
    )+};
}
textual! {
    PathBuf, "path",
        |text| if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.into()) },
        |path| path.display().to_string();
    IpAddr, "IP address",
        |text| match text {
            "localhost" => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
            _ => text.parse().map_err(|_| format!("must be an IP address such as 127.0.0.1, 0.0.0.0 or ::, not {text:?}")),
        },
        ToString::to_string;
    SocketAddr, "address:port",
        |text| text.parse().map_err(|_| format!("must be an IP address and a port such as 127.0.0.1:9100, not {text:?}")),
        ToString::to_string;
    super::Secret, "secret text", |text| super::Secret::parse(text), |_| "(hidden)".into();
    super::ConnectionUrl, "URL", |text| super::ConnectionUrl::parse(text), ToString::to_string;
    super::Network, "network", |text| text.parse(), ToString::to_string;
    super::LogFormat, "text or json", |text| text.parse(), ToString::to_string;
}

impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        if value.as_str() == Some("") { Ok(None) } else { T::from_toml(value).map(Some) }
    }

    /// An empty variable takes back what the file set.
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(T::to_toml)
    }
}

impl<T: Value> Value for Vec<T> {
    const KIND: &'static str = "list";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let array = value.as_array().ok_or_else(|| expected("a list in brackets", value))?;
        array.iter().map(|item| T::from_toml(item.get_ref())).collect()
    }

    /// Comma-separated, or a list as in the file: `a, b` or `["a", "b"]`. An empty variable is an empty list.
    fn from_text(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('[') {
            let value = DeValue::parse(text).map_err(|error| format!("must be a list ({})", error.message()))?;
            return Self::from_toml(value.get_ref());
        }
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::from_text).collect()
    }

    fn to_toml(&self) -> Option<String> {
        let items: Vec<_> = self.iter().filter_map(T::to_toml).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}
