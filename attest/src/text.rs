//! Bounded words, log names and times. Each type has one constructor, and deserialisation goes through it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Why a text cannot stand in a leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: {why}")]
pub struct InvalidText {
    what: &'static str,
    why: String,
}

impl InvalidText {
    fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidText;
            fn try_from(text: String) -> Result<Self, InvalidText> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

const MAX_TEXT: usize = 256;

/// 1 to 256 printable ASCII characters: names, codes, reasons. Nothing in it can act on a reader's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

impl Text {
    /// Makes any text fit: other characters become `?`, the rest is cut off, and nothing at all becomes `-`. For
    /// reasons that other software has worded.
    pub fn fitted(text: &str) -> Self {
        let fitted: String = text.chars().take(MAX_TEXT).map(|c| if is_plain(c) { c } else { '?' }).collect();
        Self(if fitted.is_empty() { "-".into() } else { fitted })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() || c == ' '
}

impl FromStr for Text {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(InvalidText::new("a text", "it must have 1 to 256 characters"));
        }
        match text.chars().find(|c| !is_plain(*c)) {
            Some(bad) => Err(InvalidText::new("a text", format!("{bad:?} is not printable ASCII"))),
            None => Ok(Self(text.to_owned())),
        }
    }
}
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
serde_as_text!(Text);

/// The name of one log, as a checkpoint's origin line will carry it: 1 to 128 of `A-Z a-z 0-9 . _ / -`.
///
/// Two logs must never share a name: put something random into it when a log is begun.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogId(String);

impl LogId {
    /// The name of no log.
    pub(crate) fn none() -> Self {
        Self("none".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogId {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
        if text.is_empty() || text.len() > 128 || !text.chars().all(allowed) {
            return Err(InvalidText::new("the log name", "it must have 1 to 128 characters from A-Z a-z 0-9 . _ / -"));
        }
        Ok(Self(text.to_owned()))
    }
}
impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
serde_as_text!(LogId);

/// A moment in UTC with whole milliseconds, in the one form `2025-01-31T23:59:59.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct At(Timestamp);

impl At {
    /// Cuts the time to whole milliseconds.
    ///
    /// # Errors
    /// Says that the time lies outside the years 1970 to 9999.
    pub fn new(time: Timestamp) -> Result<Self, InvalidText> {
        let out_of_range = || InvalidText::new("the time", "it must lie in the years 1970 to 9999");
        let milliseconds = time.as_millisecond();
        if milliseconds < 0 {
            return Err(out_of_range());
        }
        Timestamp::from_millisecond(milliseconds).map(Self).map_err(|_| out_of_range())
    }

    /// The moment.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl FromStr for At {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let form = || InvalidText::new("the time", "it must look like 2025-01-31T23:59:59.000Z");
        let at = Self::new(text.parse().map_err(|_| form())?)?;
        if at.to_string() == text { Ok(at) } else { Err(form()) }
    }
}
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.0.to_zoned(TimeZone::UTC);
        write!(f, "{}.{:03}Z", utc.strftime("%Y-%m-%dT%H:%M:%S"), utc.millisecond())
    }
}
serde_as_text!(At);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_cannot_carry_terminal_escapes_or_line_breaks() {
        for bad in ["", "a\u{1b}[2J", "two\nlines", "é", "\u{202e}abc", &"x".repeat(257)] {
            assert!(bad.parse::<Text>().is_err(), "{bad:?}");
            assert!(Text::fitted(bad).as_str().parse::<Text>().is_ok(), "{bad:?}");
        }
    }

    #[test]
    fn log_names_are_fit_for_a_checkpoint_origin() {
        assert!("casemate/party-1/0a1b".parse::<LogId>().is_ok());
        for bad in ["", "a b", "a+b", "a\nb", &"x".repeat(129)] {
            assert!(bad.parse::<LogId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_has_exactly_one_form() {
        let at: At = "2025-01-31T23:59:59.070Z".parse().unwrap();
        assert_eq!(at.to_string(), "2025-01-31T23:59:59.070Z");
        for bad in [
            "2025-01-31T23:59:59Z",
            "2025-01-31T23:59:59.0700Z",
            "2025-01-31T23:59:59.070+00:00",
            "2025-01-31t23:59:59.070z",
            "2025-01-31 23:59:59.070Z",
            "1969-12-31T23:59:59.999Z",
            "2025-02-30T00:00:00.000Z",
        ] {
            assert!(bad.parse::<At>().is_err(), "{bad}");
        }
    }

    #[test]
    fn finer_than_a_millisecond_is_cut_off() {
        let time: Timestamp = "2025-01-31T23:59:59.0709999Z".parse().unwrap();
        assert_eq!(At::new(time).unwrap().to_string(), "2025-01-31T23:59:59.070Z");
    }
}
