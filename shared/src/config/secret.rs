//! Values that cannot be printed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HIDDEN: &str = "***";

/// A password or key. Printing, debugging and serialising it give `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { HIDDEN }
    }
}

/// Address of a database. Only its password is hidden: `postgres://user:***@host/db`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Wraps an address.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole address, password included.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The password may stand before the host or among the parameters. What is no address is hidden
    /// whole: it may be a password in the wrong place.
    fn shown(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return HIDDEN.to_owned();
        };
        let (address, parameters) = rest
            .split_once('?')
            .map_or((rest, None), |(address, after)| (address, Some(after)));
        // The last @ ends the user: an unescaped one may stand in the password.
        let address = match address.rsplit_once('@') {
            Some((user, host)) => match user.split_once(':') {
                Some((name, _)) => format!("{name}:{HIDDEN}@{host}"),
                None => format!("{user}@{host}"),
            },
            None => address.to_owned(),
        };
        let parameters = parameters.map_or_else(String::new, |parameters| {
            let shown: Vec<_> = parameters.split('&').map(hide_parameter).collect();
            format!("?{}", shown.join("&"))
        });
        format!("{scheme}://{address}{parameters}")
    }
}

fn hide_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret_name(name) => format!("{name}={HIDDEN}"),
        // An unescaped ? in a password ends up here, with the host behind it.
        _ if parameter.contains('@') => HIDDEN.to_owned(),
        _ => parameter.to_owned(),
    }
}

/// Raw librdkafka properties. Those that hold secrets by their name print as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The property as it is printed.
    fn shown<'a>(name: &str, value: &'a str) -> &'a str {
        if is_secret_name(name) { HIDDEN } else { value }
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(properties: I) -> Self {
        Self(
            properties
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, value)| (name, Self::shown(name, value))))
            .finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Self::shown(name, value))))
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let properties = BTreeMap::<String, Text>::deserialize(deserializer)?;
        Ok(properties
            .into_iter()
            .map(|(name, Text(value))| (name, value))
            .collect())
    }
}

/// `sasl.password`, `ssl.key.password`, `sasl.oauthbearer.client.secret`, `ssl.key.pem`, ...
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "jaas", "oauthbearer.config", "key.pem"]
        .iter()
        .any(|word| name.contains(word))
}

/// A scalar as text: whoever wrote `linger.ms = 5` or an all-digit password meant text.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

/// Both secret types print, debug and serialise what `shown` gives, and are read from any scalar.
macro_rules! hide {
    ($secret:ident) => {
        impl fmt::Display for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.shown().as_ref())
            }
        }

        impl fmt::Debug for $secret {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($secret))
            }
        }

        impl Serialize for $secret {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $secret {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Text::deserialize(deserializer).map(|Text(text)| Self(text))
            }
        }

        impl From<&str> for $secret {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

hide!(Secret);
hide!(DatabaseUrl);
