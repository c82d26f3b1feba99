//! What a policy compares with literals, as text: so that a refusal can say what would be permitted.

use serde_json::Value;

/// Comparisons in Cedar's JSON form, and how people write them.
const COMPARISONS: [(&str, &str); 11] = [
    ("==", "=="),
    ("!=", "!="),
    ("<", "<"),
    ("<=", "<="),
    (">", ">"),
    (">=", ">="),
    ("in", "in"),
    ("lessThan", "<"),
    ("lessThanOrEqual", "<="),
    ("greaterThan", ">"),
    ("greaterThanOrEqual", ">="),
];

/// Every comparison of an attribute with a literal in a policy's `when` and `unless` clauses (Cedar's JSON form), sorted.
pub(super) fn of(policy: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for condition in policy.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        if let Some(body) = condition.get("body") {
            collect(body, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

fn collect(expression: &Value, found: &mut Vec<String>) {
    match expression {
        Value::Object(fields) => {
            found.extend(comparison(fields));
            fields.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

fn comparison(fields: &serde_json::Map<String, Value>) -> Option<String> {
    let (_, sign, operands) =
        COMPARISONS.iter().find_map(|(name, sign)| fields.get(*name).map(|operands| (name, sign, operands)))?;
    let (left, right) = match operands {
        Value::Array(pair) => (pair.first()?, pair.get(1)?),
        _ => (operands.get("left")?, operands.get("right")?),
    };
    match (attribute(left), literal(left), attribute(right), literal(right)) {
        (Some(attribute), _, _, Some(literal)) => Some(format!("{attribute} {sign} {literal}")),
        (_, Some(literal), Some(attribute), _) => Some(format!("{literal} {sign} {attribute}")),
        _ => None,
    }
}

/// `context.tx.amount` and the like.
pub(super) fn attribute(expression: &Value) -> Option<String> {
    if let Some(variable) = expression.get("Var") {
        return variable.as_str().map(str::to_owned);
    }
    let access = expression.get(".")?;
    let of = attribute(access.get("left")?)?;
    Some(format!("{of}.{}", access.get("attr")?.as_str()?))
}

pub(super) fn literal(expression: &Value) -> Option<String> {
    let constructed = |name: &str| {
        let argument = expression.get(name)?.get(0)?.get("Value")?;
        argument.as_str().map(str::to_owned)
    };
    if let Some(decimal) = constructed("decimal") {
        return Some(decimal);
    }
    let value = expression.get("Value")?;
    match value.get("__entity") {
        Some(entity) => Some(format!("{}::{}", entity.get("type")?.as_str()?, entity.get("id")?)),
        None => (!value.is_object()).then(|| value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limits(conditions: &str) -> Vec<String> {
        let text = format!("forbid (principal, action, resource) {conditions};");
        let policy = cedar_policy::Policy::parse(None, text).unwrap();
        of(&policy.to_json().unwrap())
    }

    #[test]
    fn comparisons_with_literals_are_found_wherever_they_stand() {
        assert_eq!(
            limits(
                r#"unless { context has tx && context.tx.amount.lessThanOrEqual(decimal("1.5")) }
                   when { context.tx.to in Mpc::AddressBook::"treasury" || !(2 <= context.approvals.count) }"#
            ),
            [
                "2 <= context.approvals.count",
                "context.tx.amount <= 1.5",
                "context.tx.to in Mpc::AddressBook::\"treasury\"",
            ]
        );
    }

    #[test]
    fn comparisons_between_attributes_are_left_out() {
        assert!(limits("when { context.a == context.b }").is_empty());
        assert!(limits("").is_empty());
    }
}
