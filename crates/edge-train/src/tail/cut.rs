//! Where the unfrozen tail of a base begins.

use crate::TrainError;
use crate::base::makers;
use edge_engine::pb::{GraphProto, NodeProto};
use std::collections::HashSet;

/// The part of a graph between one value and the features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it reads: all that comes from the picture goes through this value.
    pub value: String,
    /// Its nodes, in order.
    pub nodes: Vec<usize>,
    /// Whether it has its channels last.
    pub channels_last: bool,
    /// Whether a node that was not named had to be taken in, so that there is one such value.
    pub widened: bool,
}

/// Names of blocks that are shown where none fits.
const SHOWN: usize = 12;

impl Part {
    /// The nodes that `name` names (a node, a value or a weight of this name, or what begins with it) and all after them, up to
    /// `features`; where they read several values, from the nearest value before that everything goes through.
    pub fn find(graph: &GraphProto, input: &str, features: &str, name: &str) -> Result<Part, TrainError> {
        let makers = makers(graph);
        // What the features are computed from, and of that what depends on the picture. Nodes are in order, as ONNX wants them.
        let mut needed = HashSet::from([features]);
        let mut inner: Vec<usize> = vec![];
        for (at, node) in graph.node.iter().enumerate().rev() {
            if node.output.iter().any(|o| needed.contains(o.as_str())) {
                needed.extend(node.input.iter().map(String::as_str));
                inner.push(at);
            }
        }
        inner.reverse();
        let mut alive = HashSet::from([input]);
        inner.retain(|at| {
            let node = &graph.node[*at];
            let depends = node.input.iter().any(|i| alive.contains(i.as_str()));
            if depends {
                alive.extend(node.output.iter().map(String::as_str));
            }
            depends
        });
        if inner.iter().any(|at| {
            let node = &graph.node[*at];
            node.input.iter().filter_map(|i| makers.get(i.as_str())).any(|maker| maker >= at)
        }) {
            return Err(TrainError::Base("the nodes of the base are not in the order of computation".into()));
        }

        let matching = |how: fn(&str, &str) -> bool| -> Vec<usize> {
            let matches = |at: &&usize| names(&graph.node[**at]).any(|found| how(found, name));
            inner.iter().filter(matches).copied().collect()
        };
        let mut named = matching(whole);
        if named.is_empty() {
            named = matching(|found, name| found.starts_with(name));
        }
        let Some(first) = named.first().copied().filter(|_| !name.is_empty()) else {
            return Err(TrainError::Base(format!(
                "--unfreeze {name}: no layer before the features has a name that begins so; there is {}",
                blocks(inner.iter().map(|at| &graph.node[*at]))
            )));
        };
        // Everything after a value, and what it reads from outside.
        let after = |start: HashSet<usize>| -> (HashSet<usize>, HashSet<&str>) {
            let (mut nodes, mut made): (HashSet<usize>, HashSet<&str>) = (start, HashSet::new());
            for at in &inner {
                let node = &graph.node[*at];
                if nodes.contains(at) || node.input.iter().any(|i| made.contains(i.as_str())) {
                    nodes.insert(*at);
                    made.extend(node.output.iter().map(String::as_str));
                }
            }
            let inputs = nodes.iter().flat_map(|at| &graph.node[*at].input).map(String::as_str);
            let read = inputs.filter(|i| alive.contains(i) && !made.contains(i)).collect();
            (nodes, read)
        };
        let (nodes, read) = after(named.iter().copied().collect());
        // A value that all of it comes from: what comes after it reads nothing else.
        let single = |value: &'_ str| -> Option<HashSet<usize>> {
            let readers = inner.iter().filter(|at| graph.node[**at].input.iter().any(|i| i == value));
            let (all, read) = after(readers.copied().collect());
            (read.len() == 1 && nodes.is_subset(&all)).then_some(all)
        };
        let before = inner.iter().rev().filter(|at| **at < first).filter_map(|at| graph.node[*at].output.first());
        let candidates = read.iter().copied().filter(|_| read.len() == 1).chain(before.map(String::as_str));
        for value in candidates.chain([input]) {
            if let Some(all) = single(value) {
                if value == input {
                    break;
                }
                let widened = all != nodes;
                let nodes = inner.into_iter().filter(|at| all.contains(at)).collect();
                return Ok(Part { value: value.into(), nodes, channels_last: channels_last(graph, value), widened });
            }
        }
        Err(TrainError::Base(format!(
            "--unfreeze {name}: no layer of the base would stay frozen; name a later one, such as {}",
            blocks(inner.iter().map(|at| &graph.node[*at]))
        )))
    }
}

/// Whether a value has its channels last: as the node says that made it, or one before that keeps shapes.
fn channels_last(graph: &GraphProto, value: &str) -> bool {
    let makers = makers(graph);
    let mut name = value;
    // Bounded: a malformed graph may have a cycle.
    for _ in 0..graph.node.len() {
        let Some(node) = makers.get(name).map(|at| &graph.node[*at]) else { return false };
        match node.op_type.as_str() {
            "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" => return false,
            "Transpose" => return crate::base::turned(node),
            _ => {}
        }
        let Some(before) = node.input.iter().find(|i| makers.contains_key(i.as_str())) else { return false };
        name = before;
    }
    false
}

/// What a node may be called: its name, those of what it makes and of its weights.
fn names(node: &NodeProto) -> impl Iterator<Item = &str> {
    let weights = node.input.iter().skip(1);
    [&node.name].into_iter().chain(&node.output).chain(weights).map(String::as_str)
}

/// Whether `name` is `found`, or its first parts: exporters put slashes, dots and underscores between those, and PyTorch's also
/// something before.
fn whole(found: &str, name: &str) -> bool {
    let begins = |found: &str| {
        let rest = found.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.', '_', ':', '-']))
    };
    begins(found) || found.match_indices('/').any(|(at, _)| begins(&found[at + 1..]))
}

/// The last names of blocks of a network.
fn blocks<'a>(nodes: impl Iterator<Item = &'a NodeProto>) -> String {
    let mut found: Vec<&str> = vec![];
    for node in nodes {
        let path = node.name.trim_start_matches('/');
        let path = path.rsplit_once('/').map_or(path, |(before, _)| before);
        // "block14_sepconv1_act" is of "block14"; "conv2d_3" is all of a name.
        let block = path.split(['_', '.']).next().filter(|b| b.ends_with(|c: char| c.is_ascii_digit()));
        let block = block.filter(|b| b.starts_with(|c: char| c.is_alphabetic()) && b.len() > 2).unwrap_or(path);
        if !block.is_empty() && !found.contains(&block) {
            found.push(block);
        }
    }
    match found.is_empty() {
        true => "no name at all in it".into(),
        false => found[found.len().saturating_sub(SHOWN)..].join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes as "name: inputs > output".
    fn graph(nodes: &[&str]) -> GraphProto {
        let node = |text: &&str| {
            let (name, rest) = text.split_once(": ").unwrap();
            let (inputs, output) = rest.split_once(" > ").unwrap();
            NodeProto {
                name: name.into(),
                input: inputs.split(' ').map(str::to_string).collect(),
                output: vec![output.into()],
                ..NodeProto::default()
            }
        };
        GraphProto { node: nodes.iter().map(node).collect(), ..GraphProto::default() }
    }

    fn residual() -> GraphProto {
        graph(&[
            "stem: x stem.w > stem",
            "block1_conv: stem w1 > a",
            "block1_out: a > b",
            "block2_conv1: b w2 > c",
            "conv2d_1: b w3 > d",
            "block2_conv2: c features.2.weight > e",
            "add_2: e d > f",
            "block10_conv: f w4 > g",
            "pool: g > features",
        ])
    }

    #[test]
    fn a_block_is_found_with_what_it_reads() {
        let graph = residual();
        let find = |name: &str| Part::find(&graph, "x", "features", name).unwrap();
        assert_eq!(
            find("block10"),
            Part { value: "f".into(), nodes: vec![7, 8], channels_last: false, widened: false }
        );
        // The shortcut reads what the block reads; from within the block there is another value, so all of it is taken.
        assert_eq!(
            find("block2"),
            Part { value: "b".into(), nodes: vec![3, 4, 5, 6, 7, 8], channels_last: false, widened: true }
        );
        assert_eq!(find("block2_conv2").value, "b");
        assert_eq!(find("features.2").value, "b");
        assert_eq!(find("conv2d_1").value, "b");
        assert_eq!(find("add_2").value, "b");
        // "block1" is not "block10".
        assert_eq!(
            find("block1"),
            Part { value: "stem".into(), nodes: vec![1, 2, 3, 4, 5, 6, 7, 8], channels_last: false, widened: false }
        );
        // Half a name does where there is no whole one.
        assert_eq!(find("po"), Part { value: "g".into(), nodes: vec![8], channels_last: false, widened: false });
    }

    #[test]
    fn what_does_not_fit_is_refused_with_names_that_would() {
        let refused = |name: &str| Part::find(&residual(), "x", "features", name).unwrap_err().to_string();
        for name in ["block3", ""] {
            let error = refused(name);
            assert!(error.contains("block1, block2, conv2d_1, add_2, block10, pool"), "{error}");
        }
        assert!(refused("stem").contains("would stay frozen"));
    }
}
