//! How a record's changes descend from one another, and what a change may do to its ancestors.
//!
//! A change is held against its ancestors and nothing else, so that every device reaches the same
//! verdict in whatever order changes arrive. Of an actor's changes with one number a graph takes the first
//! that fits; who must not be fooled by the order offers it one alone.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    ActorId, Change, ObjType, ScalarValue,
    legacy::{Key, ObjectId, Op, OpId, OpType},
};

use super::gate::{Inspected, Refusal, contained};

/// The changes of a record and how they descend from one another.
#[derive(Clone, Default)]
pub(super) struct Graph(BTreeMap<[u8; 32], Node>);

#[derive(Clone)]
struct Node {
    deps: Vec<[u8; 32]>,
    actor: [u8; 16],
    seq: u64,
    first_op: u64,
    last_op: u64,
    time: i64,
}

impl Graph {
    pub(super) fn has(&self, actor: &[u8; 16], seq: u64) -> bool {
        self.0.values().any(|node| node.actor == *actor && node.seq == seq)
    }

    pub(super) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.0.contains_key(hash)
    }

    /// Returns the direct ancestors that are absent.
    pub(super) fn missing(&self, deps: &[[u8; 32]]) -> Vec<[u8; 32]> {
        deps.iter().filter(|dep| !self.contains(dep)).copied().collect()
    }

    /// Adds a change whose ancestors are all present, if it follows from them.
    pub(super) fn add(&mut self, inspected: &Inspected, change: &Change) -> Result<(), Refusal> {
        let Inspected { hash, deps, actor, seq, .. } = inspected;
        if self.has(actor, *seq) {
            return Err(Refusal::DuplicateSeq);
        }
        let ancestry = self.ancestry(deps);
        let own = ancestry.iter().filter(|node| node.actor == *actor).count();
        let ops = ancestry.iter().map(|node| node.last_op).max().unwrap_or(0);
        let first_op = change.start_op().get();
        if *seq != own as u64 + 1 || first_op != ops + 1 {
            return Err(Refusal::Inconsistent);
        }
        contained(|| check_operations(change, &ancestry)).unwrap_or(Err(Refusal::Malformed))?;
        let node = Node {
            deps: deps.clone(),
            actor: *actor,
            seq: *seq,
            first_op,
            last_op: change.max_op(),
            time: change.timestamp(),
        };
        self.0.insert(*hash, node);
        Ok(())
    }

    /// Lists hash, actor and time of every change, each after its ancestors, else by time and hash.
    pub(super) fn causal_order(&self) -> Vec<([u8; 32], [u8; 16], i64)> {
        let mut left: BTreeMap<_, _> = self.0.iter().map(|(hash, node)| (*hash, node.deps.len())).collect();
        let mut children: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (hash, node) in &self.0 {
            for dep in &node.deps {
                children.entry(*dep).or_default().push(*hash);
            }
        }
        let mut ready: BTreeSet<_> =
            self.0.iter().filter(|(_, n)| n.deps.is_empty()).map(|(h, n)| (n.time, *h)).collect();
        let mut order = Vec::with_capacity(self.0.len());
        while let Some((time, hash)) = ready.pop_first() {
            order.push((hash, self.0[&hash].actor, time));
            for child in children.remove(&hash).unwrap_or_default() {
                let deps_left = left.get_mut(&child).expect("every child is a change");
                *deps_left -= 1;
                if *deps_left == 0 {
                    ready.insert((self.0[&child].time, child));
                }
            }
        }
        order
    }

    fn ancestry(&self, deps: &[[u8; 32]]) -> Vec<&Node> {
        let mut seen = BTreeSet::new();
        let mut todo = deps.to_vec();
        let mut nodes = Vec::new();
        while let Some(hash) = todo.pop() {
            if seen.insert(hash) {
                let node = &self.0[&hash];
                todo.extend(&node.deps);
                nodes.push(node);
            }
        }
        nodes
    }
}

/// Checks that operations refer to earlier ones only, and leave `v`, `n` and `x` what they are.
fn check_operations(change: &Change, ancestry: &[&Node]) -> Result<(), Refusal> {
    let own = change.actor_id().clone();
    let first_op = change.start_op().get();
    let operations = change.decode().operations;
    let mut ranges: BTreeMap<ActorId, Vec<(u64, u64)>> = BTreeMap::new();
    for node in ancestry {
        let actor = ActorId::from(node.actor);
        ranges.entry(actor).or_default().push((node.first_op, node.last_op));
    }
    let mut makes_value = false;
    let mut makes_note = false;
    for (op, number) in operations.iter().zip(first_op..) {
        let known = |id: &OpId| {
            let within = |&(first, last): &(u64, u64)| (first..=last).contains(&id.0);
            (id.1 == own && (first_op..number).contains(&id.0))
                || ranges.get(&id.1).is_some_and(|ranges| ranges.iter().any(within))
        };
        if !references(op).all(known) || !fits_object(op) {
            return Err(Refusal::Inconsistent);
        }
        match (root_key(op), &op.action) {
            (Some("v"), OpType::Put(ScalarValue::Bytes(_))) => makes_value = true,
            (Some("n"), OpType::Make(ObjType::Text)) if ancestry.is_empty() => makes_note = true,
            (Some("x"), OpType::Put(ScalarValue::Bytes(_)) | OpType::Delete) => {}
            (Some("v" | "n" | "x"), _) => return Err(Refusal::NotARecord),
            _ => {}
        }
    }
    written_in(&operations, change)?;
    let first = ancestry.is_empty();
    if first && !(makes_value && makes_note) { Err(Refusal::NotARecord) } else { Ok(()) }
}

/// The value that a change leaves, if it writes one.
///
/// # Errors
///
/// Refuses a change that leaves several: all that it puts, and puts nothing else in place of, would stand.
pub(super) fn written_value(change: &Change) -> Result<Option<Vec<u8>>, Refusal> {
    written_in(&change.decode().operations, change)
}

fn written_in(operations: &[Op], change: &Change) -> Result<Option<Vec<u8>>, Refusal> {
    let values =
        || operations.iter().zip(change.start_op().get()..).filter(|(op, _)| root_key(op) == Some("v"));
    let replaced: BTreeSet<&OpId> = values().flat_map(|(op, _)| op.pred.iter()).collect();
    let own = change.actor_id();
    let mut left = values().filter(|(_, number)| !replaced.contains(&OpId(*number, own.clone())));
    let value = left.next().and_then(|(op, _)| match &op.action {
        OpType::Put(ScalarValue::Bytes(value)) => Some(value.clone()),
        _ => None,
    });
    if left.next().is_some() { Err(Refusal::NotARecord) } else { Ok(value) }
}

fn references(op: &Op) -> impl Iterator<Item = &OpId> {
    let object = match &op.obj {
        ObjectId::Root => None,
        ObjectId::Id(id) => Some(id),
    };
    let element = match &op.key {
        Key::Seq(element) => element.as_opid(),
        Key::Map(_) => None,
    };
    op.pred.iter().chain(object).chain(element)
}

/// The root is a map: nothing is inserted into it, nothing in it has a place in a sequence.
fn fits_object(op: &Op) -> bool {
    match (&op.obj, &op.key) {
        (ObjectId::Root, Key::Seq(_)) => false,
        (_, Key::Map(_)) => !op.insert,
        (ObjectId::Id(_), Key::Seq(_)) => true,
    }
}

fn root_key(op: &Op) -> Option<&str> {
    match (&op.obj, &op.key) {
        (ObjectId::Root, Key::Map(key)) => Some(key),
        _ => None,
    }
}
