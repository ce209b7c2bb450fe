//! What a CEL expression could cost, from its text and the size of the payload alone.
//!
//! CEL ends always, but loops inside loops take powers of the payload's size, and so does what each adds to a string. The
//! estimate is an upper bound of the kind that the API server computes for CRD rules: it may refuse what would be fast.

use kube_cel::cel::common::ast::{EntryExpr, Expr};
use serde_json::Value;

/// Functions whose result can be longer than their arguments together, by a product of their lengths.
const GROWING: &[&str] = &["replace", "join", "format", "sub"];
/// The operator `+`.
const ADD: &str = "_+_";
/// Bytes for each unit of what is longest: an entry of a list, or eight bytes of text with as many beside them meanwhile.
const ENTRY: u64 = 16;
/// Functions that make much from a number.
const DENIED: &[&str] = &["lists.range", "range"];

/// What counts about an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weight {
    /// Nodes of the expression.
    nodes: u64,
    /// Calls that copy what they are given into what they make.
    copies: u64,
    /// Loops inside each other, and functions that multiply.
    power: u32,
    /// A function that is not available.
    pub(super) denied: Option<&'static str>,
}

/// What counts about a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    /// Values, and bytes of text.
    nodes: u64,
    /// Entries of the longest list or map, or bytes of the longest text.
    longest: u64,
}

impl Size {
    pub(super) fn of(value: &Value) -> Self {
        let children = |values: &mut dyn Iterator<Item = &Value>, count: usize| {
            values.map(Self::of).fold(
                Self {
                    nodes: 1,
                    longest: count as u64,
                },
                |sum, child| Self {
                    nodes: sum.nodes.saturating_add(child.nodes),
                    longest: sum.longest.max(child.longest),
                },
            )
        };
        match value {
            Value::Array(items) => children(&mut items.iter(), items.len()),
            Value::Object(fields) => {
                let keys: usize = fields.keys().map(String::len).sum();
                let size = children(&mut fields.values(), fields.len());
                Self {
                    nodes: size.nodes.saturating_add(keys as u64),
                    ..size
                }
            }
            Value::String(text) => Self {
                nodes: 1 + text.len() as u64 / 8,
                longest: text.len() as u64 / 8,
            },
            _ => Self { nodes: 1, longest: 1 },
        }
    }
}

impl Weight {
    /// Whether the order of a map's fields could matter.
    pub(super) fn loops(&self) -> bool {
        self.power > 0
    }

    /// An upper bound of the steps over a payload: every node of the expression, for every round of the loops around it, over
    /// everything. The library copies the list that a loop makes at each round.
    pub(super) fn steps(&self, size: Size) -> u64 {
        if self.power == 0 {
            return self.nodes.saturating_add(size.nodes);
        }
        let rounds = size.longest.max(self.nodes).saturating_pow(self.power);
        self.nodes
            .saturating_mul(size.nodes.max(self.nodes))
            .saturating_mul(rounds)
    }

    /// An upper bound of the bytes that an expression without loops copies: each call the longest text or list.
    pub(super) fn copied(&self, size: Size) -> u64 {
        if self.power > 0 {
            return 0;
        }
        self.copies.saturating_mul(size.longest).saturating_mul(ENTRY)
    }

    fn and(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            copies: self.copies + other.copies,
            power: self.power.max(other.power),
            denied: self.denied.or(other.denied),
        }
    }
}

pub(super) fn of(expression: &Expr) -> Weight {
    let mut growing = 0;
    let weight = walk(expression, &mut growing);
    Weight {
        power: weight.power + growing,
        ..weight
    }
}

fn walk(expression: &Expr, growing: &mut u32) -> Weight {
    let one = Weight {
        nodes: 1,
        ..Weight::default()
    };
    match expression {
        Expr::Call(call) => {
            if GROWING.contains(&call.func_name.as_str()) {
                *growing += 1;
            }
            let name = call.func_name.as_str();
            // Operators look at their arguments, but for the sum of two texts or lists.
            let copies = name == ADD || !name.starts_with(['_', '!', '@', '-']);
            let denied = DENIED.iter().copied().find(|name| *name == call.func_name);
            let target = call
                .target
                .as_ref()
                .map_or_else(Weight::default, |target| walk(&target.expr, growing));
            let arguments = call.args.iter().map(|argument| walk(&argument.expr, growing));
            let call = Weight {
                denied,
                copies: u64::from(copies),
                ..one
            };
            arguments.fold(call.and(target), Weight::and)
        }
        Expr::Comprehension(inner) => {
            let range = walk(&inner.iter_range.expr, growing);
            let parts = [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result];
            let body = parts
                .into_iter()
                .map(|part| walk(&part.expr, growing))
                .fold(one, Weight::and);
            // The range of a loop can be as long as the loops in it make it.
            Weight {
                power: 1 + body.power + range.power.saturating_sub(1),
                ..body.and(range)
            }
        }
        Expr::List(list) => list
            .elements
            .iter()
            .map(|element| walk(&element.expr, growing))
            .fold(one, Weight::and),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| entry_of(&entry.expr, growing))
            .fold(one, Weight::and),
        Expr::Struct(made) => made
            .entries
            .iter()
            .map(|entry| entry_of(&entry.expr, growing))
            .fold(one, Weight::and),
        Expr::Select(select) => one.and(walk(&select.operand.expr, growing)),
        _ => one,
    }
}

fn entry_of(entry: &EntryExpr, growing: &mut u32) -> Weight {
    match entry {
        EntryExpr::StructField(field) => walk(&field.value.expr, growing),
        EntryExpr::MapEntry(entry) => walk(&entry.key.expr, growing).and(walk(&entry.value.expr, growing)),
    }
}
