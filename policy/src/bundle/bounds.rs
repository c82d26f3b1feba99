//! Bounds on a Cedar file before Cedar's parser sees it.
//!
//! Parser, validator and evaluator recurse over expressions; brackets are not the only way to make one deep. This scan
//! knows only Cedar's tokens: it adds up, at every point, all brackets that are open and all that stands in a chain at each
//! of their levels (operators, member accesses, `if`s, clauses), which is an upper bound on the depth of the tree.
//!
//! It also refuses characters that a reviewer cannot tell apart: outside comments and annotations (which decide nothing) a
//! policy is ASCII, and nowhere may the direction of text change.

use super::error::{BundleError, Position};

/// The most brackets that may be open at once.
const MAX_BRACKETS: usize = 64;
/// The deepest tree that an expression may make.
const MAX_DEPTH: usize = 400;

/// Checks one file; returns where each statement begins, in bytes.
pub(super) fn check(path: &str, text: &str) -> Result<Vec<usize>, BundleError> {
    Scan::new(text).run().map_err(|(offset, why)| BundleError::at(path, Position::of(text, offset), why))
}

struct Scan<'a> {
    text: &'a str,
    rest: std::str::Chars<'a>,
    /// Where the last character was, in bytes.
    at: usize,
    /// Where each statement begins.
    statements: Vec<usize>,
    /// Whether the next token begins a statement.
    between: bool,
    /// Chain links seen so far at each level of brackets; the first is the statement's own level.
    levels: Vec<usize>,
    /// The level at which an annotation's bracket was opened.
    annotation: Option<usize>,
}

type Refusal = (usize, String);

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            rest: text.chars(),
            at: 0,
            statements: Vec::new(),
            between: true,
            levels: vec![0],
            annotation: None,
        }
    }

    fn run(mut self) -> Result<Vec<usize>, Refusal> {
        while let Some(character) = self.next()? {
            let comment = character == '/' && self.peek() == Some('/');
            if self.between && !comment && !character.is_whitespace() {
                self.statements.push(self.at);
                self.between = false;
            }
            match character {
                '/' if comment => self.comment()?,
                '"' => self.string()?,
                '@' => self.annotation_name()?,
                '(' | '[' | '{' => self.open()?,
                ')' | ']' | '}' => self.close(),
                ',' | ';' => self.separate(character),
                'a'..='z' | 'A'..='Z' | '_' => self.word(character)?,
                '.' | ':' | '&' | '|' | '=' | '!' | '<' | '>' | '+' | '-' | '*' | '/' | '%' => {
                    self.operator(character)?;
                }
                _ if character.is_ascii() => {}
                _ => return Err(self.not_ascii(character)),
            }
        }
        Ok(self.statements)
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn next_if(&mut self, fits: impl Fn(char) -> bool) -> Option<char> {
        let character = self.peek().filter(|next| fits(*next))?;
        self.rest.next();
        Some(character)
    }

    fn next(&mut self) -> Result<Option<char>, Refusal> {
        self.at = self.text.len().saturating_sub(self.rest.as_str().len());
        let Some(character) = self.rest.next() else {
            return Ok(None);
        };
        if hides_text(character) {
            let why = format!("the character U+{:04X} hides or reorders text; remove it", u32::from(character));
            return Err((self.at, why));
        }
        Ok(Some(character))
    }

    fn comment(&mut self) -> Result<(), Refusal> {
        while let Some(character) = self.next()? {
            if character == '\n' {
                break;
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Refusal> {
        while let Some(character) = self.next()? {
            match character {
                '"' => break,
                '\\' => {
                    let escaped = self.next()?;
                    if escaped.is_some_and(|e| matches!(e, 'u' | 'x')) && self.annotation.is_none() {
                        let why = "escaped characters in strings are refused; write them out";
                        return Err((self.at, why.into()));
                    }
                }
                _ if !character.is_ascii() && self.annotation.is_none() => {
                    return Err(self.not_ascii(character));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn annotation_name(&mut self) -> Result<(), Refusal> {
        while self.next_if(|c| c.is_ascii_alphanumeric() || c == '_').is_some() {}
        while self.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        if self.peek() == Some('(') {
            self.next()?;
            self.open()?;
            self.annotation = Some(self.levels.len());
        }
        Ok(())
    }

    fn word(&mut self, first: char) -> Result<(), Refusal> {
        let mut word = String::from(first);
        while let Some(next) = self.next_if(|c| c.is_ascii_alphanumeric() || c == '_') {
            word.push(next);
        }
        match word.as_str() {
            "if" | "has" | "like" | "is" | "in" | "when" | "unless" => self.link(),
            _ => Ok(()),
        }
    }

    fn operator(&mut self, first: char) -> Result<(), Refusal> {
        let second = match first {
            ':' | '&' | '|' => Some(first),
            '=' | '!' | '<' | '>' => Some('='),
            _ => None,
        };
        if let Some(second) = second {
            self.next_if(|next| next == second);
        }
        self.link()
    }

    fn open(&mut self) -> Result<(), Refusal> {
        if self.levels.len() > MAX_BRACKETS {
            let why = format!("more than {MAX_BRACKETS} brackets are open at once; simplify the policy");
            return Err((self.at, why));
        }
        // Indexing and calls chain as members do: `a["b"]["c"]`.
        self.link()?;
        self.levels.push(0);
        Ok(())
    }

    fn close(&mut self) {
        if self.annotation == Some(self.levels.len()) {
            self.annotation = None;
        }
        if self.levels.len() > 1 {
            self.levels.pop();
        }
    }

    fn separate(&mut self, separator: char) {
        self.between |= separator == ';';
        if let Some(level) = self.levels.last_mut() {
            *level = 0;
        }
    }

    fn link(&mut self) -> Result<(), Refusal> {
        if let Some(level) = self.levels.last_mut() {
            *level += 1;
        }
        let depth: usize = self.levels.iter().sum::<usize>() + self.levels.len();
        if depth > MAX_DEPTH {
            let why = format!(
                "operators, member accesses, `if`s or clauses are chained more than {MAX_DEPTH} deep; split the policy"
            );
            return Err((self.at, why));
        }
        Ok(())
    }

    fn not_ascii(&self, character: char) -> Refusal {
        let why = format!(
            "the character {character:?} (U+{:04X}) may be confused with another; policies are ASCII outside comments \
             and annotations",
            u32::from(character)
        );
        (self.at, why)
    }
}

/// Control characters, and those that reorder or hide text for a reader.
fn hides_text(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    ) || (character.is_control() && !matches!(character, '\n' | '\r' | '\t'))
}
