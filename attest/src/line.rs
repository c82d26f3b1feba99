//! One leaf as one canonical JSON line (RFC 8785), stored and hashed as stored.

use casemate_wire::Digest32;
use sha2::{Digest, Sha256};

use crate::entry::IntentRef;
use crate::leaf::{Leaf, VERSION};
use crate::rules;

/// The longest line, in bytes, without its newline.
pub const MAX_LINE: usize = 64 * 1024;

/// A leaf and its bytes, which agree: a line is made by [`crate::Head::append`] or read by [`Line::read`].
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    leaf: Leaf,
    text: String,
    hash: Digest32,
}

/// Why bytes are not a line of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`MAX_LINE`].
    #[error("it has {0} bytes; a leaf has at most {MAX_LINE}")]
    TooLong(usize),
    /// Not JSON, not a leaf's fields, or a field that is not valid.
    #[error("it is not a leaf: {0}")]
    Malformed(String),
    /// A leaf, but not in the one form that RFC 8785 gives it.
    #[error("it is not in canonical form: its bytes were changed or written by other software")]
    NotCanonical,
    /// Another version of the leaf's form.
    #[error("it has version {0}; this release reads version {VERSION}")]
    Version(u16),
    /// Its fields do not fit its phase.
    #[error("it breaks a rule of its phase: {0}")]
    Shape(String),
}

impl Line {
    /// Reads a stored line, without its newline.
    ///
    /// # Errors
    /// Says what keeps the bytes from being a leaf in canonical form.
    pub fn read(bytes: &[u8]) -> Result<Self, LineError> {
        if bytes.len() > MAX_LINE {
            return Err(LineError::TooLong(bytes.len()));
        }
        let leaf: Leaf = serde_json::from_slice(bytes).map_err(|e| LineError::Malformed(e.to_string()))?;
        let line = Self::of(leaf)?;
        if line.text.as_bytes() == bytes { Ok(line) } else { Err(LineError::NotCanonical) }
    }

    pub(crate) fn of(leaf: Leaf) -> Result<Self, LineError> {
        if leaf.v != VERSION {
            return Err(LineError::Version(leaf.v));
        }
        rules::check(&leaf).map_err(LineError::Shape)?;
        let text = serde_json_canonicalizer::to_string(&leaf).map_err(|e| LineError::Malformed(e.to_string()))?;
        if text.len() > MAX_LINE {
            return Err(LineError::TooLong(text.len()));
        }
        let hash = leaf_hash(text.as_bytes());
        Ok(Self { leaf, text, hash })
    }

    /// The text to store, without a newline.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The fields.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The leaf hash.
    pub fn hash(&self) -> Digest32 {
        self.hash
    }

    /// What an outcome needs in order to belong to this line; `None` unless this is an intent.
    pub fn intent(&self) -> Option<IntentRef> {
        IntentRef::of(&self.leaf)
    }
}

/// `SHA-256(0x00 ‖ line)`: the leaf hash of RFC 6962, section 2.1.
pub fn leaf_hash(line: &[u8]) -> Digest32 {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(line);
    Digest32(hash.finalize().into())
}
