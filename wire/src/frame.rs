//! Frames of the message stream: a 4-byte big-endian length, then that many bytes of CBOR.

use serde::{Deserialize, Serialize};

use crate::certificate::KeyCertificate;
use crate::envelope::{SignedHello, SignedMessage};
use crate::ids::PublicKey;
use crate::problem::Problem;
use crate::rotation::Succession;
use crate::signature::EcdsaSignature;

/// The largest frame that either side accepts: the largest aux-info message of the largest committee, with room.
pub const MAX_FRAME: usize = 2 * 1024 * 1024;

/// What travels on the stream between coordinator and appliance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// A party's hello, for all others.
    Hello(SignedHello),
    /// A session message, for one or all others.
    Message(SignedMessage),
    /// The end, sent by the appliance only.
    Outcome(Box<Outcome>),
}

/// How a session ended at one party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A key was made.
    Keygen {
        /// The new public key.
        public_key: PublicKey,
        /// All n identity signatures over it.
        certificate: KeyCertificate,
    },
    /// A signature was made; it verifies.
    Sign {
        /// The signature.
        signature: EcdsaSignature,
    },
    /// A key has moved on to another epoch.
    Rotate {
        /// What proves it.
        succession: Box<Succession>,
    },
    /// The session failed here.
    Failed {
        /// Why.
        problem: Problem,
    },
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length announces more than the limit.
    #[error("a frame of {length} bytes is announced; at most {limit} are accepted")]
    TooLarge {
        /// Announced length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The CBOR is no frame.
    #[error("a frame could not be decoded: {0}")]
    Malformed(String),
}

impl Frame {
    /// The frame's bytes, length included.
    ///
    /// # Errors
    /// Says that it is larger than [`MAX_FRAME`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = vec![0; 4];
        ciborium::into_writer(self, &mut bytes).map_err(|e| FrameError::Malformed(e.to_string()))?;
        let length = bytes.len().saturating_sub(4);
        let too_large = FrameError::TooLarge { length, limit: MAX_FRAME };
        let prefix = u32::try_from(length).map_err(|_| too_large.clone())?;
        if length > MAX_FRAME {
            return Err(too_large);
        }
        bytes.splice(..4, prefix.to_be_bytes());
        Ok(bytes)
    }

    fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut rest = body;
        let frame = ciborium::de::from_reader_with_recursion_limit(&mut rest, 32)
            .map_err(|e| FrameError::Malformed(e.to_string()))?;
        if rest.is_empty() { Ok(frame) } else { Err(FrameError::Malformed(format!("{} bytes follow it", rest.len()))) }
    }
}

/// Cuts a byte stream into frames; holds at most one frame's bytes and one chunk.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    limit: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::with_limit(MAX_FRAME)
    }
}

impl FrameReader {
    /// A reader for frames of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { buffer: Vec::new(), limit: limit.min(MAX_FRAME) }
    }

    /// Adds bytes from the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Whether the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// Says that a frame is too large (before its bytes are awaited) or malformed; the stream is then of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::decode(body)?;
        self.buffer.drain(..length + 4);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::problem::Code;

    fn frame() -> Frame {
        let problem = Problem::new(Code::Timeout, "party-2 was silent");
        Frame::Outcome(Box::new(Outcome::Failed { problem }))
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let bytes = [frame().encode().unwrap(), frame().encode().unwrap()].concat();
        for size in [1, 3, 7, bytes.len()] {
            let mut reader = FrameReader::default();
            let mut seen = 0;
            for chunk in bytes.chunks(size) {
                reader.push(chunk);
                while let Some(next) = reader.next_frame().unwrap() {
                    assert_eq!(next, frame());
                    seen += 1;
                }
            }
            assert_eq!(seen, 2);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_by_its_length_alone() {
        let mut reader = FrameReader::default();
        reader.push(&u32::MAX.to_be_bytes());
        assert!(matches!(reader.next_frame(), Err(FrameError::TooLarge { .. })));
        let mut strict = FrameReader::with_limit(8);
        strict.push(&9u32.to_be_bytes());
        assert!(matches!(strict.next_frame(), Err(FrameError::TooLarge { length: 9, limit: 8 })));
    }

    #[test]
    fn trailing_bytes_inside_a_frame_are_refused() {
        let mut bytes = frame().encode().unwrap();
        bytes.push(0);
        let length = u32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        assert!(matches!(reader.next_frame(), Err(FrameError::Malformed(_))));
    }
}
