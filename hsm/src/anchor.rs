//! The audit anchor: the newest head of the audit log, kept where restoring the host's disk does not reach (FORMATS.md,
//! "Keys in the HSM" and "The audit log").
//!
//! Here are its encoding and the rule of what may follow what; how it lies on the token is in `anchor_objects.rs`.

use crate::error::HsmError;

/// What the label of an anchor's object begins with; the size follows.
pub(crate) const LABEL_PREFIX: &str = "anchor/";

/// First line of the value. Another layout gets another one.
const VERSION: &str = "casemate/anchor/v1";

/// The head of one audit log: how many leaves it had, and the RFC 6962 tree root over them.
///
/// On the token it is four lines of text, so that whoever investigates can read it with the token's own tools:
/// `casemate/anchor/v1`, the log's name, the size in decimal, the root in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    log: String,
    size: u64,
    root: [u8; 32],
}

impl Anchor {
    /// Bytes of the longest log name.
    pub const MAX_LOG: usize = 128;

    /// Longest encoding: the four lines at their longest.
    const MAX_VALUE: usize = VERSION.len() + Self::MAX_LOG + 20 + 64 + 4;

    /// An anchor for `size` leaves of the log named `log`: 1 to [`Anchor::MAX_LOG`] visible ASCII characters.
    ///
    /// # Errors
    /// [`HsmError::AnchorLogName`] for any other name.
    pub fn new(log: impl Into<String>, size: u64, root: [u8; 32]) -> Result<Self, HsmError> {
        let log = log.into();
        let visible = log.bytes().all(|byte| byte.is_ascii_graphic());
        if log.is_empty() || log.len() > Self::MAX_LOG || !visible {
            return Err(HsmError::AnchorLogName);
        }
        Ok(Self { log, size, root })
    }

    /// Name of the log.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Leaves in the log.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Tree root over these leaves.
    pub fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// `CKA_LABEL` of the object.
    pub(crate) fn label(&self) -> String {
        format!("{LABEL_PREFIX}{}", self.size)
    }

    /// `CKA_VALUE` of the object.
    pub(crate) fn to_value(&self) -> Vec<u8> {
        format!("{VERSION}\n{}\n{}\n{}\n", self.log, self.size, hex::encode(self.root)).into_bytes()
    }

    /// Reads an object; only what [`Anchor::label`] and [`Anchor::to_value`] write is taken. `Err` says what is wrong.
    pub(crate) fn from_object(label: &[u8], value: &[u8]) -> Result<Self, &'static str> {
        if value.len() > Self::MAX_VALUE {
            return Err("its value is too long");
        }
        let text = std::str::from_utf8(value).map_err(|_| "its value is not text")?;
        let mut lines = text.lines();
        if lines.next() != Some(VERSION) {
            return Err("its value does not begin with \"casemate/anchor/v1\"");
        }
        let (Some(log), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err("its value is cut short");
        };
        let size = size.parse().map_err(|_| "its size is not a number")?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(root, &mut bytes).map_err(|_| "its root is not 32 bytes in hex")?;
        let anchor = Self::new(log, size, bytes).map_err(|_| "its log name has unfit characters or length")?;
        // One anchor has one encoding: no leading zeroes, upper-case hex, other line ends or further lines.
        if anchor.to_value() != value {
            return Err("its value is not in the one form that Casemate writes");
        }
        if anchor.label().as_bytes() != label {
            return Err("its label names another size than its value");
        }
        Ok(anchor)
    }
}

/// The anchor that counts: the one of the highest size.
///
/// # Errors
/// [`HsmError::AnchorsContradict`] when there are two different ones of that size.
pub(crate) fn highest(anchors: &[Anchor]) -> Result<Option<&Anchor>, HsmError> {
    let Some(highest) = anchors.iter().max_by_key(|anchor| anchor.size) else {
        return Ok(None);
    };
    let contradicts = |other: &Anchor| other.size == highest.size && other != highest;
    if anchors.iter().any(contradicts) {
        return Err(HsmError::AnchorsContradict { size: highest.size });
    }
    Ok(Some(highest))
}

/// What is to be done so that a new anchor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Placement {
    /// It goes beside the one that counts, which it then outranks.
    Create,
    /// It is the one that counts already: an earlier try got this far.
    Stands,
}

/// Whether `new` may follow `expected`, the anchor that its caller put last, on a token that holds `found`: the same log, and
/// either longer or the very same; and nobody else has put an anchor since.
///
/// What is smaller than `expected` is what an interrupted cleanup left. Anything else beside `expected` and `new` is of
/// another writer: two copies of one appliance must not both go on, each over the other's anchors.
///
/// # Errors
/// [`HsmError::AnchorOfAnotherLog`], [`HsmError::AnchorWouldShrink`], [`HsmError::AnchorForks`],
/// [`HsmError::AnchorsContradict`], [`HsmError::AnchorConflict`].
pub(crate) fn place(found: &[Anchor], expected: Option<&Anchor>, new: &Anchor) -> Result<Placement, HsmError> {
    let standing = highest(found)?;
    let placement = standing.map_or(Ok(Placement::Create), |standing| follow(standing, new))?;
    let left = |other: &Anchor| expected.is_some_and(|own| other.log == own.log && other.size < own.size);
    let foreign = found.iter().find(|other| *other != new && Some(*other) != expected && !left(other));
    let conflict = |standing: Option<&Anchor>| HsmError::AnchorConflict {
        expected: expected.map(Anchor::size),
        standing: standing.map(Anchor::size),
    };
    match placement {
        _ if foreign.is_some() => Err(conflict(foreign)),
        Placement::Create if standing != expected => Err(conflict(standing)),
        settled => Ok(settled),
    }
}

/// Whether `new` may follow the anchor that counts, whoever put it.
fn follow(standing: &Anchor, new: &Anchor) -> Result<Placement, HsmError> {
    if standing.log != new.log {
        return Err(HsmError::AnchorOfAnotherLog { standing: standing.log.clone(), asked: new.log.clone() });
    }
    match new.size.cmp(&standing.size) {
        std::cmp::Ordering::Greater => Ok(Placement::Create),
        std::cmp::Ordering::Less => Err(HsmError::AnchorWouldShrink { standing: standing.size, asked: new.size }),
        std::cmp::Ordering::Equal if new.root == standing.root => Ok(Placement::Stands),
        std::cmp::Ordering::Equal => Err(HsmError::AnchorForks { size: new.size }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn anchor(log: &str, size: u64, root: u8) -> Anchor {
        Anchor::new(log, size, [root; 32]).unwrap()
    }

    fn refused(label: &str, value: &str) -> &'static str {
        Anchor::from_object(label.as_bytes(), value.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_value_is_four_lines_of_text() {
        let value = format!("casemate/anchor/v1\nlog/a\n7\n{}\n", "ab".repeat(32));
        assert_eq!(anchor("log/a", 7, 0xab).to_value(), value.as_bytes());
        assert_eq!(anchor("log/a", 7, 0xab).label(), "anchor/7");
    }

    #[test]
    fn the_longest_and_the_shortest_anchor_survive_their_encoding() {
        for anchor in [anchor(&"l".repeat(128), u64::MAX, 0xff), anchor("l", 0, 0)] {
            let read = Anchor::from_object(anchor.label().as_bytes(), &anchor.to_value()).unwrap();
            assert_eq!(read, anchor);
        }
        assert_eq!(anchor(&"l".repeat(128), u64::MAX, 0xff).to_value().len(), Anchor::MAX_VALUE);
    }

    #[test]
    fn log_names_that_break_the_lines_or_the_bound_are_refused() {
        for log in ["", "a b", "a\nb", "a\r", "\u{e4}", "a\0", &"l".repeat(129)] {
            let error = Anchor::new(log, 1, [0; 32]).unwrap_err();
            assert!(matches!(error, HsmError::AnchorLogName), "{log:?}");
        }
    }

    #[test]
    fn every_other_encoding_of_an_anchor_is_refused() {
        let root = "ab".repeat(32);
        for (value, why) in [
            (format!("casemate/anchor/v1\nlog\n07\n{root}\n"), "one form"),
            (format!("casemate/anchor/v1\nlog\n+7\n{root}\n"), "one form"),
            (format!("casemate/anchor/v1\nlog\n7\n{}\n", root.to_uppercase()), "one form"),
            (format!("casemate/anchor/v1\nlog\n7\n{root}"), "one form"),
            (format!("casemate/anchor/v1\nlog\n7\n{root}\n\n"), "one form"),
            (format!("casemate/anchor/v1\r\nlog\r\n7\r\n{root}\r\n"), "one form"),
            (format!("casemate/anchor/v1\nlog\n7\n{root}\nmore\n"), "one form"),
            (format!("casemate/anchor/v2\nlog\n7\n{root}\n"), "begin with"),
            (format!("casemate/anchor/v1\nl og\n7\n{root}\n"), "log name"),
            (format!("casemate/anchor/v1\nlog\n-7\n{root}\n"), "number"),
            (format!("casemate/anchor/v1\nlog\n18446744073709551616\n{root}\n"), "number"),
            (format!("casemate/anchor/v1\nlog\n7\n{}\n", "ab".repeat(31)), "root"),
            (format!("casemate/anchor/v1\nlog\n7\n{}\n", "ab".repeat(33)), "root"),
            (format!("casemate/anchor/v1\n{}\n7\n{root}\n", "l".repeat(400)), "too long"),
            ("casemate/anchor/v1\nlog\n7\n".to_owned(), "cut short"),
            (String::new(), "begin with"),
        ] {
            assert!(refused("anchor/7", &value).contains(why), "{value:?}: {}", refused("anchor/7", &value));
        }
        assert!(Anchor::from_object(b"anchor/7", &[0xff; 40]).is_err());
    }

    #[test]
    fn a_label_that_promises_another_size_is_refused() {
        let value = String::from_utf8(anchor("log", 7, 1).to_value()).unwrap();
        for label in ["anchor/8", "anchor/07", "anchor/", "anchor/7 "] {
            assert!(refused(label, &value).contains("label"), "{label}");
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_of_an_anchor_reads_as_that_anchor() {
        let good = anchor("log", 70, 0x5a);
        let (label, value) = (good.label(), good.to_value());
        for cut in 0..value.len() {
            assert!(Anchor::from_object(label.as_bytes(), &value[..cut]).is_err());
        }
        for at in 0..value.len() {
            for byte in 0..=u8::MAX {
                let mut changed = value.clone();
                changed[at] = byte;
                let read = Anchor::from_object(label.as_bytes(), &changed);
                assert!(changed == value || read != Ok(good.clone()), "{at} {byte}");
            }
        }
    }

    #[test]
    fn the_highest_size_counts_whatever_its_place() {
        let anchors = [anchor("a", 3, 3), anchor("b", 9, 9), anchor("a", 4, 4)];
        assert_eq!(highest(&anchors).unwrap(), Some(&anchors[1]));
        assert_eq!(highest(&[]).unwrap(), None);
    }

    #[test]
    fn two_different_anchors_of_the_highest_size_contradict_each_other() {
        for other in [anchor("a", 9, 1), anchor("b", 9, 9)] {
            let error = highest(&[anchor("a", 9, 9), other, anchor("a", 1, 1)]).unwrap_err();
            assert!(matches!(error, HsmError::AnchorsContradict { size: 9 }), "{error}");
        }
        // The same one twice, or a contradiction below the highest, settles nothing wrongly.
        assert!(highest(&[anchor("a", 9, 9), anchor("a", 9, 9)]).is_ok());
        assert!(highest(&[anchor("a", 9, 9), anchor("a", 1, 1), anchor("a", 1, 2)]).is_ok());
    }

    #[test]
    fn only_a_longer_or_the_very_same_anchor_of_the_same_log_may_follow() {
        let standing = anchor("a", 5, 5);
        assert_eq!(place(&[], None, &standing).unwrap(), Placement::Create);
        let follow = |new: &Anchor| place(std::slice::from_ref(&standing), Some(&standing), new);
        assert_eq!(follow(&anchor("a", 6, 5)).unwrap(), Placement::Create);
        assert_eq!(follow(&standing).unwrap(), Placement::Stands);
        let refusal = |new| follow(&new).unwrap_err();
        assert!(matches!(refusal(anchor("a", 4, 5)), HsmError::AnchorWouldShrink { standing: 5, asked: 4 }));
        assert!(matches!(refusal(anchor("a", 5, 6)), HsmError::AnchorForks { size: 5 }));
        assert!(matches!(refusal(anchor("b", 6, 6)), HsmError::AnchorOfAnotherLog { .. }));
    }

    #[test]
    fn an_anchor_follows_only_the_one_that_its_caller_put_last() {
        let [old, own, others, new] = [3, 5, 7, 9].map(|size| anchor("a", size, 1));
        let judge = |found: &[&Anchor], expected| {
            let found: Vec<Anchor> = found.iter().copied().cloned().collect();
            place(&found, expected, &new)
        };
        assert_eq!(judge(&[&own], Some(&own)).unwrap(), Placement::Create);
        assert_eq!(judge(&[&old, &own], Some(&own)).unwrap(), Placement::Create, "a cleanup was interrupted");
        assert_eq!(judge(&[&own, &new], Some(&own)).unwrap(), Placement::Stands, "an answer was lost");
        assert_eq!(judge(&[&new], Some(&own)).unwrap(), Placement::Stands);
        for (found, expected) in [
            (vec![&others], Some(&own)),
            (vec![&own, &others], Some(&own)),
            // Both have written before either looked again: the higher one does not win by that.
            (vec![&others, &new], Some(&own)),
            (vec![&own, &others, &new], Some(&own)),
            // The token was restored or wiped under the caller's feet, or it believes that nothing was ever anchored.
            (vec![&old], Some(&own)),
            (vec![], Some(&own)),
            (vec![&own], None),
            (vec![&own, &new], None),
        ] {
            let refused = judge(&found, expected).unwrap_err();
            assert!(matches!(refused, HsmError::AnchorConflict { .. }), "{found:?} {expected:?}: {refused}");
        }
        // Of another log, at the same size: no leftover of ours.
        let found = [own.clone(), anchor("b", 3, 1)];
        assert!(matches!(place(&found, Some(&own), &new), Err(HsmError::AnchorConflict { .. })));
    }
}
