//! The examination at a start: the whole log is read again, the tree and every guard table are compared with it, and its
//! end with the anchor.

use casemate_attest::standing::judge;
use casemate_attest::tree::{Frontier, edge, root_at};
use casemate_attest::{
    Anchored, At, Facts, Found, Guard, Head, Leaf, Line, Place, Snapshot, Standing, State, Verifier,
};
use casemate_wire::Digest32;
use rusqlite::{Connection, OptionalExtension};

use super::StoreError;
use super::evidence::{TreeNodes, detail_of, stored_nodes};
use super::tables;

/// Lines that are read at a time.
const CHUNK: i64 = 1000;

/// What an examination found.
#[derive(Debug)]
pub struct Examined {
    /// Whether the log may be continued.
    pub standing: Standing,
    /// Where the log ends, as far as it verifies; `None` without any good line.
    pub head: Option<Head>,
    /// What every guard says by the log, as far as it verifies.
    pub state: State,
    /// The newest time in it.
    pub latest: Option<At>,
}

/// Examines a store; `None` stands for a data folder without a database.
///
/// # Errors
/// The database cannot be read. What is wrong with the evidence in it is no error but a verdict.
pub fn examine(store: Option<&Connection>, anchored: Anchored) -> Result<Examined, StoreError> {
    let mut replay = Replay { size: anchored_size(&anchored), ..Replay::default() };
    let found = match store {
        None => Found::Nothing,
        Some(store) => match replay.run(store)? {
            Ok(found) => found,
            Err(Damage(what)) => Found::Damaged(what),
        },
    };
    let Replay { verifier, latest, root_at_anchored, mut differences, .. } = replay;
    let (head, state) = (verifier.head().cloned(), verifier.state().clone());
    if let (Some(store), Found::Log(_), Some(latest)) = (store, &found, latest) {
        differences.extend(tables::differences(store, &state, latest)?);
    }
    let standing = judge(Facts { anchored, found, root_at_anchored, differences });
    Ok(Examined { standing, head, state, latest })
}

fn anchored_size(anchored: &Anchored) -> Option<u64> {
    match anchored {
        Anchored::At(place) => Some(place.size),
        Anchored::Nothing | Anchored::Unusable(_) => None,
    }
}

/// What keeps a log from being one.
struct Damage(String);

/// Reads the log from its beginning, or from the snapshot that it rests on.
#[derive(Default)]
struct Replay {
    verifier: Verifier,
    tree: Frontier,
    latest: Option<At>,
    /// The anchored size, and the root that the log has there.
    size: Option<u64>,
    root_at_anchored: Option<Digest32>,
    differences: Vec<String>,
    details: u64,
}

impl Replay {
    fn run(&mut self, store: &Connection) -> Result<Result<Found, Damage>, StoreError> {
        let mut next = match self.begin(store)? {
            Ok(Some(first)) => first,
            Ok(None) => return Ok(Ok(Found::Nothing)),
            Err(damage) => return Ok(Err(damage)),
        };
        loop {
            let lines = numbered_lines(store, next)?;
            let Some((last, _)) = lines.last() else { break };
            next = last.saturating_add(1);
            for (row, line) in &lines {
                if let Err(damage) = self.line(store, *row, line)? {
                    return Ok(Err(damage));
                }
            }
        }
        self.end(store)
    }

    /// Takes over what the log rests on, and gives the number of its first row; `None` if there is no row.
    fn begin(&mut self, store: &Connection) -> Result<Result<Option<i64>, Damage>, StoreError> {
        let failed = StoreError::sqlite("read the audit log");
        let first: Option<(i64, String)> = store
            .query_row("SELECT seq, line FROM leaves ORDER BY seq LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(&failed)?;
        let snapshot: Option<String> =
            store.query_row("SELECT text FROM snapshot", [], |row| row.get(0)).optional().map_err(&failed)?;
        let Some((row, line)) = first else { return Ok(Ok(None)) };
        let taken = match Line::read(line.as_bytes()) {
            Ok(line) => self.rest_on(line.leaf(), snapshot.as_deref()),
            Err(error) => Err(Damage(format!("its first line cannot be used: {error}"))),
        };
        if let (Ok(()), Some(size)) = (&taken, self.size.filter(|size| *size <= self.tree.size())) {
            self.root_at_anchored = root_at(size, &TreeNodes(store)).ok();
        }
        Ok(taken.map(|()| Some(row)))
    }

    fn rest_on(&mut self, first: &Leaf, snapshot: Option<&str>) -> Result<(), Damage> {
        let named = first.guards.iter().find(|change| change.guard == Guard::Snapshot);
        let named = named.and_then(|change| change.to.as_ref()).map(casemate_attest::Text::as_str);
        let snapshot = match (named, snapshot) {
            (None, None) => return Ok(()),
            (Some(_), None) => return Err(Damage("the snapshot that it rests on is missing".into())),
            (None, Some(_)) => return Err(Damage("a snapshot is stored that its first line does not name".into())),
            (Some(named), Some(text)) if Snapshot::digest(text).to_string() != named => {
                return Err(Damage("the stored snapshot is not the one that its first line names".into()));
            }
            (Some(_), Some(text)) => Snapshot::read(text).map_err(|error| Damage(error.to_string()))?,
        };
        self.latest = Some(snapshot.at);
        if first.seq == 0 {
            self.verifier = Verifier::new().resting_on(snapshot.state);
        } else if self.size.is_some_and(|anchored| anchored <= first.seq) {
            // Whoever can write the database alone could otherwise put any state of the guards below a leaf of their own.
            return Err(Damage("it rests on a snapshot that the anchor does not cover".into()));
        } else {
            self.tree = snapshot.tree.clone();
            self.verifier = Verifier::resume(snapshot).map_err(|fault| Damage(fault.to_string()))?;
        }
        Ok(())
    }

    fn line(&mut self, store: &Connection, row: i64, line: &str) -> Result<Result<(), Damage>, StoreError> {
        let leaf = match self.verifier.feed(line.as_bytes()) {
            Ok(leaf) => leaf,
            Err(fault) => return Ok(Err(Damage(fault.to_string()))),
        };
        if u64::try_from(row) != Ok(leaf.seq) {
            return Ok(Err(Damage(format!("its leaf {} stands in the row {row}", leaf.seq))));
        }
        self.latest = self.latest.max(Some(leaf.at));
        for (id, hash) in self.tree.push(casemate_attest::line::leaf_hash(line.as_bytes())) {
            if TreeNodes(store).find(id)? != Some(hash) {
                let what =
                    format!("node {} of level {} of the audit tree is not what the leaves make", id.index, id.level);
                self.differences.push(what);
            }
        }
        if self.size == Some(self.tree.size()) {
            self.root_at_anchored = Some(self.tree.root());
        }
        self.detail(store, &leaf)?;
        Ok(Ok(()))
    }

    fn detail(&mut self, store: &Connection, leaf: &Leaf) -> Result<(), StoreError> {
        let Some(commitment) = leaf.detail else { return Ok(()) };
        let what = match detail_of(store, leaf.seq) {
            Ok(None) => "is missing",
            kept => {
                self.details = self.details.saturating_add(1);
                match kept.map(|kept| kept.and_then(|kept| kept.commitment().ok())) {
                    Ok(kept) if kept == Some(commitment) => return Ok(()),
                    Ok(_) => "is not the one that it commits to",
                    Err(StoreError::Corrupt { .. }) => "cannot be read",
                    Err(error) => return Err(error),
                }
            }
        };
        self.differences.push(format!("the detail of leaf {} {what}", leaf.seq));
        Ok(())
    }

    /// What can be seen only once all lines are read.
    fn end(&mut self, store: &Connection) -> Result<Result<Found, Damage>, StoreError> {
        let Some(head) = self.verifier.head() else { return Ok(Ok(Found::Nothing)) };
        let size = head.size();
        let place = Place { log: head.log().clone(), size, root: head.root() };
        for id in edge(size) {
            if TreeNodes(store).find(id)?.is_none() {
                self.differences.push(format!("node {} of level {} of the audit tree is missing", id.index, id.level));
            }
        }
        // A tree of n leaves has 2n - (bits set in n) complete nodes.
        let whole = size.saturating_mul(2).saturating_sub(u64::from(size.count_ones()));
        let nodes = stored_nodes(store)?;
        if nodes != whole {
            self.differences.push(format!("the audit tree has {nodes} nodes in the store; {size} leaves make {whole}"));
        }
        let failed = StoreError::sqlite("count the audit log's details");
        let details: i64 = store.query_row("SELECT count(*) FROM details", [], |row| row.get(0)).map_err(failed)?;
        if u64::try_from(details) != Ok(self.details) {
            self.differences
                .push(format!("there are {details} details in the store; leaves commit to {} of them", self.details));
        }
        Ok(Ok(Found::Log(place)))
    }
}

fn numbered_lines(store: &Connection, from: i64) -> Result<Vec<(i64, String)>, StoreError> {
    let failed = StoreError::sqlite("read the audit log");
    let mut statement =
        store.prepare_cached("SELECT seq, line FROM leaves WHERE seq >= ?1 ORDER BY seq LIMIT ?2").map_err(&failed)?;
    let rows = statement.query_map([from, CHUNK], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&failed)?;
    rows.collect::<Result<_, _>>().map_err(&failed)
}
