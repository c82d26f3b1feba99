//! What a forbid would permit, as alternatives: each a list of conditions that must all hold.
//!
//! `forbid … unless { A && B || C }` gives `[[A, B], [C]]`. A forbid without `unless` gives what would make its `when` false.
//! These are for people and programs that read a refusal; the evaluator never looks at them.

use cedar_policy::{Effect, Policy};
use serde_json::{Map, Value, json};

use super::limits::{attribute, literal};

/// More alternatives, or more conditions in one, explain nothing to anybody.
const MAX: usize = 12;

/// One condition, as the policy states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// A comparison of an attribute with a literal.
    Compare {
        /// Such as `context.tx.amount`.
        attribute: String,
        /// Such as `<=`; see [`SIGNS`] and [`Condition`]'s makers.
        sign: &'static str,
        /// Decimals and entities are text.
        permitted: Value,
    },
    /// Anything else, as Cedar text, with the attributes that it reads.
    Text {
        /// The expression.
        text: String,
        /// Sorted, each once.
        attributes: Vec<String>,
    },
}

/// All conditions of one alternative hold.
pub(crate) type Alternative = Vec<Condition>;

/// Cedar's JSON name of a comparison; how people write it; the same with its sides changed over; its opposite.
const SIGNS: [(&str, &str, &str, &str); 10] = [
    ("==", "==", "==", "!="),
    ("!=", "!=", "!=", "=="),
    ("<", "<", ">", ">="),
    ("<=", "<=", ">=", ">"),
    (">", ">", "<", "<="),
    (">=", ">=", "<=", "<"),
    ("lessThan", "<", ">", ">="),
    ("lessThanOrEqual", "<=", ">=", ">"),
    ("greaterThan", ">", "<", "<="),
    ("greaterThanOrEqual", ">=", "<=", "<"),
];

/// The alternatives of a forbid. Empty for a permit, and for a forbid that nothing, or too much, would satisfy.
pub(super) fn of(policy: &Policy) -> Vec<Alternative> {
    if policy.effect() == Effect::Permit {
        return Vec::new();
    }
    let Ok(form) = policy.to_json() else { return Vec::new() };
    let conditions = form.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let bodies = |kind: &'static str| {
        conditions.iter().filter(move |c| c.get("kind").is_some_and(|k| k == kind)).filter_map(|c| c.get("body"))
    };
    let has_unless = bodies("unless").next().is_some();
    let found = if has_unless {
        bodies("unless").try_fold(Vec::new(), |all, body| either(all, alternatives(body, true)?))
    } else {
        bodies("when").try_fold(Vec::new(), |all, body| either(all, alternatives(body, false)?))
    };
    tidy(&found.unwrap_or_default())
}

/// When an expression is true (or, with `wanted` false, when it is false). `None` if that takes too many words.
fn alternatives(expression: &Value, wanted: bool) -> Option<Vec<Alternative>> {
    let Some((name, operands)) = expression.as_object().and_then(|fields| fields.iter().next()) else {
        return Some(vec![vec![other(expression, wanted)]]);
    };
    let side = |side: &str, wanted| alternatives(operands.get(side)?, wanted);
    match (name.as_str(), wanted) {
        ("&&", true) | ("||", false) => both(&side("left", wanted)?, &side("right", wanted)?),
        ("||", true) | ("&&", false) => either(side("left", wanted)?, side("right", wanted)?),
        ("!", _) => side("arg", !wanted),
        ("if-then-else", _) => either(
            both(&side("if", true)?, &side("then", wanted)?)?,
            both(&side("if", false)?, &side("else", wanted)?)?,
        ),
        ("Value", _) if operands.is_boolean() => {
            Some(if operands == &Value::Bool(wanted) { vec![Vec::new()] } else { Vec::new() })
        }
        _ => Some(vec![vec![comparison(name, operands, wanted).unwrap_or_else(|| other(expression, wanted))]]),
    }
}

fn either(mut one: Vec<Alternative>, other: Vec<Alternative>) -> Option<Vec<Alternative>> {
    one.extend(other.into_iter().filter(|alternative| !one.contains(alternative)).collect::<Vec<_>>());
    (one.len() <= MAX).then_some(one)
}

fn both(one: &[Alternative], other: &[Alternative]) -> Option<Vec<Alternative>> {
    if one.len().saturating_mul(other.len()) > MAX {
        return None;
    }
    let mut joined = Vec::new();
    for (left, right) in one.iter().flat_map(|left| other.iter().map(move |right| (left, right))) {
        let mut all = left.clone();
        all.extend(right.iter().filter(|condition| !left.contains(condition)).cloned());
        if all.len() > MAX {
            return None;
        }
        joined.push(all);
    }
    Some(joined)
}

fn comparison(name: &str, operands: &Value, wanted: bool) -> Option<Condition> {
    let (left, right) = match operands {
        Value::Array(pair) => (pair.first()?, pair.get(1)),
        _ => (operands.get("left").or_else(|| operands.get("arg"))?, operands.get("right")),
    };
    let compare = |attribute, sign, permitted| Some(Condition::Compare { attribute, sign, permitted });
    if let Some((_, sign, mirrored, opposite)) = SIGNS.iter().find(|(known, ..)| *known == name) {
        let negated = |sign: &'static str| {
            if wanted { sign } else { SIGNS.iter().find(|(_, s, ..)| *s == sign).map_or(sign, |(.., not)| not) }
        };
        return match (attribute(left), value(right?)) {
            (Some(attribute), Some(permitted)) => compare(attribute, if wanted { sign } else { opposite }, permitted),
            _ => compare(attribute(right?)?, negated(mirrored), value(left)?),
        };
    }
    let sign = |yes, no| if wanted { yes } else { no };
    match name {
        "in" => compare(attribute(left)?, sign("in", "not in"), value(right?)?),
        "contains" => match attribute(left) {
            Some(attribute) => compare(attribute, sign("contains", "does not contain"), value(right?)?),
            None => compare(attribute(right?)?, sign("in", "not in"), value(left)?),
        },
        "containsAny" => compare(attribute(left)?, sign("contains any of", "contains none of"), value(right?)?),
        "containsAll" => compare(attribute(left)?, sign("contains all of", "does not contain all of"), value(right?)?),
        "isEmpty" => compare(attribute(left)?, sign("==", "!="), json!([])),
        "has" => {
            let name = operands.get("attr")?.as_str()?;
            compare(format!("{}.{name}", attribute(left)?), sign("is", "is"), json!(sign("present", "absent")))
        }
        "is" if operands.get("in").is_none() => {
            compare(attribute(left)?, sign("is a", "is not a"), operands.get("entity_type")?.clone())
        }
        "like" => compare(attribute(left)?, sign("like", "not like"), pattern(operands.get("pattern")?)?),
        _ => None,
    }
}

/// A literal as a JSON value: numbers, truth values and text as they are, decimals and entities as text, sets as lists.
fn value(expression: &Value) -> Option<Value> {
    if let Some(items) = expression.get("Set").and_then(Value::as_array) {
        return items.iter().map(value).collect();
    }
    match expression.get("Value") {
        Some(plain @ (Value::String(_) | Value::Bool(_) | Value::Number(_))) => Some(plain.clone()),
        _ => literal(expression).map(Value::String),
    }
}

fn pattern(parts: &Value) -> Option<Value> {
    let part = |part: &Value| match part {
        Value::String(_) => Some("*".to_owned()),
        _ => part.get("Literal").and_then(Value::as_str).map(|text| text.replace('*', "\\*")),
    };
    parts.as_array()?.iter().map(part).collect::<Option<String>>().map(Value::String)
}

/// An attribute that is true or false by itself, or any other expression as text.
fn other(expression: &Value, wanted: bool) -> Condition {
    if let Some(attribute) = attribute(expression) {
        return Condition::Compare { attribute, sign: "==", permitted: wanted.into() };
    }
    let text = cedar_text(expression).unwrap_or_else(|| "a condition that cannot be shown".to_owned());
    let mut attributes = Vec::new();
    mentioned(expression, &mut attributes);
    attributes.sort();
    attributes.dedup();
    Condition::Text { text: if wanted { text } else { format!("!({text})") }, attributes }
}

/// The Cedar text of an expression, taken from a policy that has it as its only condition.
fn cedar_text(expression: &Value) -> Option<String> {
    let everything = json!({"op": "All"});
    let policy = Policy::from_json(
        None,
        json!({
            "effect": "permit", "principal": everything, "action": everything, "resource": everything,
            "conditions": [{"kind": "when", "body": expression}]
        }),
    );
    let text = policy.ok()?.to_cedar()?;
    let (_, body) = text.split_once("when {")?;
    let (body, _) = body.rsplit_once('}')?;
    Some(body.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn mentioned(expression: &Value, found: &mut Vec<String>) {
    match expression {
        Value::Object(fields) if is_access(fields) => found.extend(attribute(expression)),
        Value::Object(fields) => fields.values().for_each(|value| mentioned(value, found)),
        Value::Array(items) => items.iter().for_each(|item| mentioned(item, found)),
        _ => {}
    }
}

fn is_access(fields: &Map<String, Value>) -> bool {
    fields.contains_key(".") || fields.contains_key("Var")
}

/// Leaves out what goes without saying: that an attribute is present where it is compared, and absence as a way out where
/// there is another one.
fn tidy(found: &[Alternative]) -> Vec<Alternative> {
    let presence = |condition: &Condition, wanted: &str| match condition {
        Condition::Compare { attribute, sign: "is", permitted } if permitted == wanted => Some(attribute.clone()),
        _ => None,
    };
    let reads = |condition: &Condition, of: &str| match condition {
        Condition::Compare { attribute, .. } => is_within(attribute, of),
        Condition::Text { attributes, .. } => attributes.iter().any(|attribute| is_within(attribute, of)),
    };
    let tidied: Vec<Alternative> = found
        .iter()
        .map(|all| {
            let needless = |condition: &Condition| {
                presence(condition, "present")
                    .is_some_and(|of| all.iter().any(|other| other != condition && reads(other, &of)))
            };
            all.iter().filter(|condition| !needless(condition)).cloned().collect()
        })
        .collect();
    let a_way_out = |all: &&Alternative| !all.iter().any(|condition| presence(condition, "absent").is_some());
    if tidied.iter().any(|all| a_way_out(&all)) {
        return tidied.iter().filter(a_way_out).cloned().collect();
    }
    tidied
}

fn is_within(attribute: &str, of: &str) -> bool {
    attribute.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lines(conditions: &str) -> Vec<Vec<String>> {
        let policy = Policy::parse(None, format!("forbid (principal, action, resource) {conditions};")).unwrap();
        let line = |condition: &Condition| match condition {
            Condition::Compare { attribute, sign, permitted } => format!("{attribute} {sign} {permitted}"),
            Condition::Text { text, attributes } => format!("{text} of {attributes:?}"),
        };
        of(&policy).iter().map(|all| all.iter().map(line).collect()).collect()
    }

    #[test]
    fn alternatives_of_unless_keep_their_conditions_together() {
        assert_eq!(
            lines(
                r#"when { context has tx } unless {
                    (context.tx.asset == "ETH" && context.tx.amount.lessThanOrEqual(decimal("1.0"))) ||
                    (context.tx.asset == "USDC" && context.tx.amount.lessThanOrEqual(decimal("1000.0"))) }"#
            ),
            [
                [r#"context.tx.asset == "ETH""#, r#"context.tx.amount <= "1.0""#],
                [r#"context.tx.asset == "USDC""#, r#"context.tx.amount <= "1000.0""#],
            ]
        );
    }

    #[test]
    fn a_forbid_without_unless_permits_the_opposite_of_its_when() {
        assert_eq!(lines("when { context.blind }"), [["context.blind == false"]]);
        assert_eq!(
            lines(r#"when { context has tx && context.tx.kind == "message" }"#),
            [[r#"context.tx.kind != "message""#]]
        );
        assert_eq!(lines("when { !(3 < context.approvals.count) }"), [["context.approvals.count > 3"]]);
        assert_eq!(lines("when { 3 < context.approvals.count }"), [["context.approvals.count <= 3"]]);
        assert_eq!(lines("unless { context has message }"), [[r#"context.message is "present""#]]);
    }

    #[test]
    fn conditions_are_shown_in_the_words_of_their_readers() {
        assert_eq!(
            lines(
                r#"unless { context.tx has to && context.tx.to in Mpc::AddressBook::"treasury" &&
                    ["ETH", "BTC"].contains(context.tx.asset) && context.approvals.names.contains("ann") &&
                    context.message like "login *" && resource is Mpc::Key && context.session.devices.isEmpty() }"#
            ),
            [[
                r#"context.tx.to in "Mpc::AddressBook::\"treasury\"""#,
                r#"context.tx.asset in ["ETH","BTC"]"#,
                r#"context.approvals.names contains "ann""#,
                r#"context.message like "login *""#,
                r#"resource is a "Mpc::Key""#,
                "context.session.devices == []",
            ]]
        );
        assert_eq!(
            lines("unless { resource.threshold_t < resource.threshold_n }"),
            [[r#"resource.threshold_t < resource.threshold_n of ["resource.threshold_n", "resource.threshold_t"]"#]]
        );
    }

    #[test]
    fn what_takes_too_many_words_is_left_out() {
        let pair = |n: u32| format!("(context.count.hour == {n} || context.count.day == {n})");
        let all: Vec<String> = (0..40).map(pair).collect();
        assert!(lines(&format!("unless {{ {} }}", all.join(" && "))).is_empty());
        assert!(lines("").is_empty());
        let permit = Policy::parse(None, "permit (principal, action, resource) when { context.blind };").unwrap();
        assert!(of(&permit).is_empty());
    }
}
