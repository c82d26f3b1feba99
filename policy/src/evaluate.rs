//! One request in Cedar's terms, evaluated once for each effect.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use casemate_wire::Code;
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::amount::Decimal;
use crate::bundle::Rules;
use crate::counters::{Counters, Windows};
use crate::explain::Observation;
use crate::request::{Action, Approvals, Client, NewRoster, Resource, SessionFacts, SlotFacts};
use crate::stack::on_large_stack;
use crate::tx::Tx;
use crate::verdict::{Allowed, Denied, PolicyNote, Refusal, Verdict};

/// The most effects of one request: each is judged by itself.
const MAX_EFFECTS: usize = 500;
/// The most refused effects that an answer shows.
const MAX_OBSERVED: usize = 20;

/// Everything about a request but its effects.
pub(crate) struct Facts<'a> {
    pub(crate) principal: &'a Client,
    pub(crate) action: Action,
    pub(crate) resource: &'a Resource,
    pub(crate) approvals: &'a Approvals,
    pub(crate) time: Timestamp,
    pub(crate) session: &'a SessionFacts,
    pub(crate) derivation_path: Option<&'a str>,
    pub(crate) peers_attested: bool,
}

/// What there is to judge.
pub(crate) enum Subject {
    /// The effects of a decoded intent, each with what was spent of its asset.
    Effects(Vec<(Tx, Counters)>),
    /// A hash whose meaning is unknown.
    Blind(Counters),
    /// An action that signs no message.
    NoMessage,
}

/// What is judged at once.
#[derive(Clone, Copy)]
struct Judged<'a> {
    tx: Option<&'a Tx>,
    blind: bool,
    counters: &'a Counters,
}

/// What one evaluation says.
struct Opinion {
    allowed: bool,
    policies: BTreeSet<String>,
    problems: BTreeSet<String>,
}

impl Opinion {
    fn refusal(problem: String) -> Self {
        Self { allowed: false, policies: BTreeSet::new(), problems: BTreeSet::from([problem]) }
    }
}

/// Evaluates every effect; all must be allowed. Anything that goes wrong is a refusal.
pub(crate) fn evaluate(rules: &Rules, facts: &Facts<'_>, subject: &Subject) -> Verdict {
    let effects: Vec<Judged<'_>> = match subject {
        Subject::Effects(effects) => {
            effects.iter().map(|(tx, counters)| Judged { tx: Some(tx), blind: false, counters }).collect()
        }
        Subject::Blind(counters) => vec![Judged { tx: None, blind: true, counters }],
        Subject::NoMessage => vec![Judged { tx: None, blind: false, counters: &Counters::NOTHING }],
    };
    if effects.len() > MAX_EFFECTS {
        let why = format!("the request has more than {MAX_EFFECTS} effects; split it");
        return Verdict::Deny(Denied::because(why, rules.digest));
    }
    let blind = matches!(subject, Subject::Blind(_));
    let judge = || -> Vec<Opinion> { effects.iter().map(|judged| opinion(rules, facts, *judged)).collect() };
    let opinions = match on_large_stack(judge) {
        Ok(opinions) if !opinions.is_empty() => opinions,
        Ok(_) => return Verdict::Deny(Denied::because("there is nothing to judge", rules.digest)),
        Err(error) => return Verdict::Deny(Denied::because(error.to_string(), rules.digest)),
    };
    if opinions.iter().all(|opinion| opinion.allowed) {
        return Verdict::Allow(Allowed { policies: notes(rules, &opinions), bundle: rules.digest });
    }
    let refused: Vec<Refused<'_>> = opinions
        .iter()
        .zip(&effects)
        .enumerate()
        .filter(|(_, (opinion, _))| !opinion.allowed)
        .map(|(index, (opinion, judged))| {
            let seen = Observation::of(facts, judged.tx, judged.blind, judged.counters, &LocalTime::of(rules, facts));
            Refused { index, opinion, tx: judged.tx, seen }
        })
        .collect();
    let policies = notes(rules, refused.iter().map(|refused| refused.opinion));
    let problems: BTreeSet<String> =
        refused.iter().flat_map(|refused| refused.opinion.problems.iter().cloned()).collect();
    Verdict::Deny(Denied {
        code: if blind { Code::BlindSigningDenied } else { Code::PolicyDenied },
        refusals: policies.iter().map(|note| refusal(note, &refused)).collect(),
        policies,
        problems: problems.into_iter().collect(),
        observed: refused.iter().take(MAX_OBSERVED).filter_map(|refused| refused.observed(rules)).collect(),
        bundle: Some(rules.digest),
    })
}

/// One effect that was refused.
struct Refused<'a> {
    index: usize,
    opinion: &'a Opinion,
    tx: Option<&'a Tx>,
    seen: Observation,
}

impl Refused<'_> {
    /// `context.tx`, and beside it what else of the context its refusing policies compared. Nothing if that is nothing.
    fn observed(&self, rules: &Rules) -> Option<Value> {
        let notes = notes(rules, [self.opinion]);
        let compared = self.seen.compared(notes.iter().flat_map(|note| &note.alternatives));
        let mut observed = self.tx.map_or_else(|| json!({}), |tx| json!(tx));
        if let Value::Object(fields) = &mut observed {
            for (name, value) in compared {
                fields.entry(name).or_insert(value);
            }
        }
        let nothing = observed.as_object().is_none_or(serde_json::Map::is_empty);
        (!nothing).then_some(observed)
    }
}

fn refusal(note: &PolicyNote, refused: &[Refused<'_>]) -> Refusal {
    let by_it = || refused.iter().filter(|refused| refused.opinion.policies.contains(&note.id));
    Refusal {
        policy: note.clone(),
        effects: by_it().map(|refused| refused.index).collect(),
        any_of: by_it().next().map(|refused| refused.seen.beside(&note.alternatives)).unwrap_or_default(),
    }
}

fn notes<'a>(rules: &Rules, opinions: impl IntoIterator<Item = &'a Opinion>) -> Vec<PolicyNote> {
    let ids: BTreeSet<&String> = opinions.into_iter().flat_map(|opinion| &opinion.policies).collect();
    ids.into_iter().map(|id| rules.note(id)).collect()
}

fn opinion(rules: &Rules, facts: &Facts<'_>, judged: Judged<'_>) -> Opinion {
    let (request, entities) = match in_cedar(rules, facts, judged) {
        Ok(both) => both,
        Err(why) => {
            return Opinion::refusal(format!("the request does not fit the policy schema: {why}"));
        }
    };
    let response = Authorizer::new().is_authorized(&request, &rules.policies, &entities);
    let deciding = response.diagnostics().reason().map(ToString::to_string).collect();
    let failed: BTreeMap<String, String> = response
        .diagnostics()
        .errors()
        .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(error)| {
            (error.policy_id().to_string(), error.to_string())
        })
        .collect();
    // Cedar skips a policy that fails to evaluate, a forbid too. Here its failure refuses the request.
    if !failed.is_empty() {
        let forbidding = if response.decision() == Decision::Deny { deciding } else { BTreeSet::new() };
        return Opinion {
            allowed: false,
            policies: forbidding.into_iter().chain(failed.keys().cloned()).collect(),
            problems: failed.into_values().collect(),
        };
    }
    match response.decision() {
        Decision::Allow => Opinion { allowed: true, policies: deciding, problems: BTreeSet::new() },
        Decision::Deny if deciding.is_empty() => Opinion::refusal(no_permit(rules, facts.action)),
        Decision::Deny => Opinion { allowed: false, policies: deciding, problems: BTreeSet::new() },
    }
}

/// An implicit deny, with the permits that could have matched.
fn no_permit(rules: &Rules, action: Action) -> String {
    const SHOWN: usize = 8;
    let permits: Vec<String> = rules.permits_for(action).into_iter().collect();
    let action = action.as_str();
    if permits.is_empty() {
        return format!("no permit matched: the bundle has none for {action}");
    }
    let more = if permits.len() > SHOWN { ", …" } else { "" };
    let shown: Vec<&str> = permits.iter().take(SHOWN).map(String::as_str).collect();
    format!("no permit matched: those for {action} are {}{more}", shown.join(", "))
}

/// A request's time as people at the desk see it, in the manifest's zone.
pub(crate) struct LocalTime {
    /// 1 is Monday.
    pub(crate) weekday: i8,
    pub(crate) minute_of_day: i64,
    /// The calendars in which the day stands.
    pub(crate) calendars: BTreeSet<String>,
}

impl LocalTime {
    fn of(rules: &Rules, facts: &Facts<'_>) -> Self {
        let local = facts.time.to_zoned(rules.time_zone.clone());
        Self {
            weekday: local.weekday().to_monday_one_offset(),
            minute_of_day: i64::from(local.hour()) * 60 + i64::from(local.minute()),
            calendars: rules.tables.calendars.on(local.date()),
        }
    }
}

type Attributes = HashMap<String, RestrictedExpression>;

fn in_cedar(rules: &Rules, facts: &Facts<'_>, judged: Judged<'_>) -> Result<(cedar_policy::Request, Entities), String> {
    let principal = uid("Client", &facts.principal.name)?;
    let resource = resource_uid(facts.resource)?;
    let mut entities: HashMap<EntityUid, Entity> = rules.literals.clone();
    let mut add = |entity: Entity| entities.insert(entity.uid(), entity);
    add(client_entity(facts.principal)?);
    let (attributes, groups) = resource_attributes(rules, facts.resource)?;
    add(Entity::new(resource.clone(), attributes, groups).map_err(|e| e.to_string())?);
    for id in judged.tx.iter().flat_map(|tx| [tx.to.clone(), tx.contract.clone(), verifying_contract(tx)]).flatten() {
        add(rules.tables.address_entity(&id)?);
    }
    let entities =
        Entities::from_entities(entities.into_values(), Some(&rules.schema)).map_err(|error| chain(&error))?;
    let context = context(rules, facts, judged)?;
    let action = uid("Action", facts.action.as_str())?;
    let request = cedar_policy::Request::new(principal, action, resource, context, Some(&rules.schema))
        .map_err(|error| chain(&error))?;
    Ok((request, entities))
}

/// The entity of a client.
pub(crate) fn client_entity(client: &Client) -> Result<Entity, String> {
    let attributes = HashMap::from([("roles".to_owned(), texts(&client.roles)), ("org".to_owned(), text(&client.org))]);
    Entity::new(uid("Client", &client.name)?, attributes, HashSet::new()).map_err(|error| error.to_string())
}

fn resource_uid(resource: &Resource) -> Result<EntityUid, String> {
    match resource {
        Resource::Key(key) => uid("Key", &key.public_key.to_string()),
        Resource::KeySlot(_) => uid("KeySlot", "new"),
        Resource::Appliance => uid("Appliance", "self"),
    }
}

fn resource_attributes(rules: &Rules, resource: &Resource) -> Result<(Attributes, HashSet<EntityUid>), String> {
    let (slot, public_key) = match resource {
        Resource::Appliance => return Ok((HashMap::new(), HashSet::new())),
        Resource::Key(key) => (&key.slot, Some(key.public_key.to_string())),
        Resource::KeySlot(slot) => (slot, None),
    };
    let mut attributes = slot_attributes(slot);
    if let Resource::Key(key) = resource {
        attributes.insert("age_days".into(), long(key.age_days.into()));
        attributes.insert("restored".into(), RestrictedExpression::new_bool(key.restored));
    }
    let groups = rules.tables.groups_of(slot.label.as_deref(), public_key.as_deref())?;
    Ok((attributes, groups))
}

fn slot_attributes(slot: &SlotFacts) -> Attributes {
    HashMap::from([
        ("kind".to_owned(), text(&slot.kind.to_string())),
        ("threshold_t".to_owned(), long(slot.threshold_t.into())),
        ("threshold_n".to_owned(), long(slot.threshold_n.into())),
        ("label".to_owned(), text(slot.label.as_deref().unwrap_or_default())),
    ])
}

fn context(rules: &Rules, facts: &Facts<'_>, judged: Judged<'_>) -> Result<Context, String> {
    let local = LocalTime::of(rules, facts);
    let time = record([
        ("weekday", long(local.weekday.into())),
        ("minute_of_day", long(local.minute_of_day)),
        ("unix", long(facts.time.as_second())),
        ("calendars", texts(&local.calendars)),
    ])?;
    let approvals = record([
        ("count", long(facts.approvals.count.into())),
        ("distinct_orgs", long(facts.approvals.distinct_orgs.into())),
        ("names", texts(&facts.approvals.names)),
    ])?;
    let counters = judged.counters;
    let mut fields = vec![
        ("blind".to_owned(), RestrictedExpression::new_bool(judged.blind)),
        ("spent".to_owned(), windows(counters.spent, decimal)?),
        ("group_spent".to_owned(), windows(counters.group_spent, decimal)?),
        ("fees".to_owned(), windows(counters.fees, decimal)?),
        ("count".to_owned(), windows(counters.count, long)?),
        ("group_count".to_owned(), windows(counters.group_count, long)?),
        ("approvals".to_owned(), approvals),
        ("time".to_owned(), time),
        ("session".to_owned(), session(facts.session)?),
        ("peers_attested".to_owned(), RestrictedExpression::new_bool(facts.peers_attested)),
    ];
    if let Some(path) = facts.derivation_path {
        fields.push(("derivation_path".into(), text(path)));
    }
    if let Some(tx) = judged.tx {
        fields.push(("tx".into(), tx_record(tx)?));
        if let Some(message) = &tx.message {
            fields.push(("message".into(), text(message)));
        }
        if let Some(typed_data) = typed_data(tx)? {
            fields.push(("typed_data".into(), typed_data));
        }
    }
    Context::from_pairs(fields).map_err(|error| error.to_string())
}

fn session(session: &SessionFacts) -> Result<RestrictedExpression, String> {
    let mut fields = vec![
        ("participants", texts(&session.participants)),
        ("threshold_t", long(session.threshold_t.into())),
        ("devices", texts(&session.devices)),
    ];
    if let Some(NewRoster { parties, threshold_t, threshold_n }) = &session.new_roster {
        let roster = record([
            ("parties", texts(parties)),
            ("threshold_t", long((*threshold_t).into())),
            ("threshold_n", long((*threshold_n).into())),
        ])?;
        fields.push(("new_roster", roster));
    }
    record(fields)
}

fn windows<T: Copy>(
    values: Windows<T>,
    express: impl Fn(T) -> RestrictedExpression,
) -> Result<RestrictedExpression, String> {
    let Windows { hour, day, week } = values.map(express);
    record([("hour", hour), ("day", day), ("week", week)])
}

fn long(value: i64) -> RestrictedExpression {
    RestrictedExpression::new_long(value)
}

fn decimal(value: Decimal) -> RestrictedExpression {
    RestrictedExpression::new_decimal(value.to_string())
}

fn tx_record(tx: &Tx) -> Result<RestrictedExpression, String> {
    let mut fields = vec![
        ("kind", text(tx.kind.as_str())),
        ("chain", text(&tx.chain)),
        ("chain_id", long(tx.chain_id)),
        ("asset", text(&tx.asset)),
        ("amount", decimal(tx.amount)),
        ("amount_base", text(&tx.amount_base)),
        ("fee", decimal(tx.fee)),
        ("outputs_external", long(tx.outputs_external)),
    ];
    for (name, account) in [("to", &tx.to), ("contract", &tx.contract)] {
        if let Some(id) = account {
            fields.push((name, RestrictedExpression::new_entity_uid(uid("Address", id)?)));
        }
    }
    for (name, value) in [("method", &tx.method), ("token_id", &tx.token_id)] {
        if let Some(value) = value {
            fields.push((name, text(value)));
        }
    }
    record(fields)
}

fn typed_data(tx: &Tx) -> Result<Option<RestrictedExpression>, String> {
    let Some(typed_data) = &tx.typed_data else { return Ok(None) };
    let mut fields = vec![("primary_type", text(&typed_data.primary_type))];
    if let Some(name) = &typed_data.domain_name {
        fields.push(("domain_name", text(name)));
    }
    if let Some(id) = verifying_contract(tx) {
        fields.push(("verifying_contract", RestrictedExpression::new_entity_uid(uid("Address", &id)?)));
    }
    record(fields).map(Some)
}

/// The address id of the contract that checks typed data.
fn verifying_contract(tx: &Tx) -> Option<String> {
    let contract = tx.typed_data.as_ref()?.verifying_contract.as_ref()?;
    Some(format!("eip155:{}:{contract}", tx.chain_id))
}

/// An entity of the schema's namespace.
pub(crate) fn uid(type_name: &str, id: &str) -> Result<EntityUid, String> {
    let type_name: EntityTypeName = format!("Mpc::{type_name}").parse().map_err(|error| chain(&error))?;
    Ok(EntityUid::from_type_name_and_id(type_name, EntityId::new(id)))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn texts(values: &BTreeSet<String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.iter().map(|value| text(value)))
}

fn record<'a>(
    fields: impl IntoIterator<Item = (&'a str, RestrictedExpression)>,
) -> Result<RestrictedExpression, String> {
    RestrictedExpression::new_record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)))
        .map_err(|error| error.to_string())
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}
