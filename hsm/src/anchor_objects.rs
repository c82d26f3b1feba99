//! Anchors as data objects on the token: the new one first, the old ones destroyed after; the highest size counts.
//!
//! An object is found by its class, `CKA_APPLICATION` and the beginning of its label. It must be private as well:
//! anybody who reaches the token can write public objects, without a PIN. What was found once is not remembered, since
//! another session may have destroyed it meanwhile.

use cryptoki::error::RvError;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::anchor::{Anchor, LABEL_PREFIX, Placement, highest, place};
use crate::error::{Doing, HsmError};
use crate::session::OpenSession;

/// `CKA_APPLICATION` of our objects.
const APPLICATION: &[u8] = b"casemate";

/// What is being done while an anchor is written.
const WRITING: &str = "writing the audit anchor";

/// The anchors on a token, as one logged-in session sees them.
pub(crate) struct AnchorObjects<'a> {
    open: &'a OpenSession,
    session: &'a Session,
}

/// An object that claims to be an anchor.
struct Found {
    handle: ObjectHandle,
    anchor: Result<Anchor, HsmError>,
}

impl<'a> AnchorObjects<'a> {
    pub(crate) fn of(open: &'a OpenSession, session: &'a Session) -> Self {
        Self { open, session }
    }

    /// The anchor that counts. A single one that cannot be read is an error: it may be the one that counts.
    pub(crate) fn latest(&self) -> Result<Option<Anchor>, HsmError> {
        let anchors = intact(self.list()?)?.into_iter().map(|(_, anchor)| anchor).collect::<Vec<_>>();
        Ok(highest(&anchors)?.cloned())
    }

    /// Makes `new` the only anchor, if `expected` is the one that counts. Doing this again is fine at any point where an
    /// earlier try broke off.
    ///
    /// Tokens have no compare-and-swap, so what settles a race of two writers is the end of `expected`: it can be destroyed
    /// once. Whoever fails at that looks again, and finds the other's anchor.
    pub(crate) fn put(&self, expected: Option<&Anchor>, new: &Anchor) -> Result<(), HsmError> {
        let (handles, anchors): (Vec<_>, Vec<_>) = intact(self.list()?)?.into_iter().unzip();
        let there = match place(&anchors, expected, new)? {
            Placement::Create => None,
            Placement::Stands => anchors.iter().position(|anchor| anchor == new),
        };
        let kept = match there.and_then(|position| handles.get(position)) {
            Some(handle) => *handle,
            None => self.create(new)?,
        };
        // None of the others outranks it: that is what `place` has settled.
        self.destroy_others(handles, kept)
    }

    /// Makes `new` the only anchor, whatever there is.
    pub(crate) fn replace(&self, new: &Anchor) -> Result<(), HsmError> {
        let found = self.list()?;
        let there = found.iter().find(|found| found.anchor.as_ref().is_ok_and(|anchor| anchor == new));
        let kept = match there {
            Some(found) => found.handle,
            None => self.create(new)?,
        };
        self.destroy_others(found.into_iter().map(|found| found.handle), kept)
    }

    fn list(&self) -> Result<Vec<Found>, HsmError> {
        let wanted = [
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Application(APPLICATION.to_vec()),
        ];
        let objects = self.session.find_objects(&wanted).doing("looking for the audit anchor")?;
        let read = objects.into_iter().map(|handle| self.read(handle));
        let found = read.filter_map(Result::transpose).collect();
        // A session that was logged out, or a token that is gone, finds nothing and reports no error. Private handles
        // end with the login (PKCS#11 v2.40, C_Logout), so a key that still answers shows that all was to be seen.
        self.open.probe()?;
        found
    }

    /// Reads one of our data objects; `None` when it is not an anchor.
    fn read(&self, handle: ObjectHandle) -> Result<Option<Found>, HsmError> {
        const WANTED: [AttributeType; 3] = [AttributeType::Label, AttributeType::Value, AttributeType::Modifiable];
        let attributes = self.session.get_attributes(handle, &WANTED).doing("reading the audit anchor")?;
        let (mut label, mut value, mut modifiable) = (Vec::new(), Vec::new(), true);
        for attribute in attributes {
            match attribute {
                Attribute::Label(bytes) => label = bytes,
                Attribute::Value(bytes) => value = bytes,
                Attribute::Modifiable(flag) => modifiable = flag,
                _ => {}
            }
        }
        if !label.starts_with(LABEL_PREFIX.as_bytes()) {
            return Ok(None);
        }
        let anchor = match Anchor::from_object(&label, &value) {
            Ok(_) if modifiable => Err("CKA_MODIFIABLE is not false"),
            read => read,
        };
        let anchor = anchor.map_err(|problem| HsmError::AnchorDamaged { id: shown(&label), problem });
        Ok(Some(Found { handle, anchor }))
    }

    /// Writes an anchor and reads it back, with everything by which it is found again.
    fn create(&self, anchor: &Anchor) -> Result<ObjectHandle, HsmError> {
        let template = [
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Modifiable(false),
            Attribute::Application(APPLICATION.to_vec()),
            Attribute::Label(anchor.label().into_bytes()),
            Attribute::Value(anchor.to_value()),
        ];
        let handle = self.write(&template).map_err(|error| match error {
            HsmError::Call { source, .. } if refuses_object(source.code()) => HsmError::AnchorUnsupported { source },
            other => other,
        })?;
        let types = template.each_ref().map(Attribute::attribute_type);
        let kept = self.session.get_attributes(handle, &types).doing("reading the audit anchor back")?;
        if kept == template {
            return Ok(handle);
        }
        // Left there it would be found damaged, and stand in the way of the one that counted until now.
        if let Err(left) = self.destroy(handle, "removing an anchor that reads back changed") {
            tracing::error!(event = "hsm_anchor_left", id = anchor.label(), %left);
        }
        Err(HsmError::AnchorDamaged { id: anchor.label(), problem: "it reads back other than it was written" })
    }

    /// Writes an object, in the way that costs this token the least.
    fn write(&self, template: &[Attribute]) -> Result<ObjectHandle, HsmError> {
        if self.open.token().is_softhsm()
            && let Some(handle) = self.write_by_copy(template)?
        {
            return Ok(handle);
        }
        self.session.create_object(template).doing(WRITING)
    }

    /// Makes the object in the session and copies it to the token: there it gets its attributes at once, and is found as an
    /// anchor by the last write only. `None` when the token does not copy.
    ///
    /// SoftHSM writes a token object's file anew for each attribute that `C_CreateObject` gives a default, twelve times for a
    /// data object; for a copy three times. Elsewhere it would be three calls in the place of one.
    fn write_by_copy(&self, template: &[Attribute]) -> Result<Option<ObjectHandle>, HsmError> {
        let in_session = template.iter().map(|attribute| match attribute {
            Attribute::Token(_) => Attribute::Token(false),
            // What cannot be modified is not copied to another place either.
            Attribute::Modifiable(_) => Attribute::Modifiable(true),
            other => other.clone(),
        });
        let draft = self.session.create_object(&in_session.collect::<Vec<_>>()).doing(WRITING)?;
        let copied = self.session.copy_object(draft, &[Attribute::Token(true), Attribute::Modifiable(false)]);
        let clearing = "clearing the draft of an audit anchor";
        let found =
            self.session.get_attributes(draft, &[AttributeType::Class, AttributeType::Token]).doing(clearing)?;
        if found != [Attribute::Class(ObjectClass::DATA), Attribute::Token(false)] {
            return Err(HsmError::HandleStale { doing: clearing });
        }
        self.session.destroy_object(draft).doing(clearing)?;
        match copied.doing(WRITING) {
            Ok(handle) => Ok(Some(handle)),
            Err(HsmError::Call { source, .. }) if refuses_object(source.code()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn destroy_others(
        &self,
        handles: impl IntoIterator<Item = ObjectHandle>,
        kept: ObjectHandle,
    ) -> Result<(), HsmError> {
        for handle in handles {
            if handle != kept {
                self.destroy(handle, "destroying an earlier audit anchor")?;
            }
        }
        Ok(())
    }

    /// Destroys a data object and nothing else: a handle whose session was lost may stand for a key by now.
    fn destroy(&self, handle: ObjectHandle, doing: &'static str) -> Result<(), HsmError> {
        let class = self.session.get_attributes(handle, &[AttributeType::Class]).doing(doing)?;
        if class != [Attribute::Class(ObjectClass::DATA)] {
            return Err(HsmError::HandleStale { doing });
        }
        self.session.destroy_object(handle).doing(doing)
    }
}

/// The anchors that were found, if each of them can be read.
fn intact(found: Vec<Found>) -> Result<Vec<(ObjectHandle, Anchor)>, HsmError> {
    found.into_iter().map(|found| Ok((found.handle, found.anchor?))).collect()
}

/// A label from outside, fit for a message.
fn shown(label: &[u8]) -> String {
    const LONGEST: usize = 64;
    label.escape_ascii().take(LONGEST).map(char::from).collect()
}

/// Whether the token says that it does not take such objects at all.
fn refuses_object(code: Option<RvError>) -> bool {
    matches!(
        code,
        Some(
            RvError::ActionProhibited
                | RvError::ArgumentsBad
                | RvError::AttributeReadOnly
                | RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::FunctionNotSupported
                | RvError::TemplateIncomplete
                | RvError::TemplateInconsistent
        )
    )
}
