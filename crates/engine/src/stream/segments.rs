//! What a graph is made of, as the executor goes through it: stretches of plain nodes, layers of experts,
//! dense weights, rows of tables.
//!
//! Pure, and made before anything is computed: nothing here knows ggml or memory.

use std::ops::Range;

use super::prefetcher::View;
use super::step::LayerOps;

/// What a streamed weight is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Expert { layer: usize, part: usize },
    Dense(usize),
    Rows(usize),
}

/// A node with a streamed weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlacedOp {
    pub node: usize,
    /// Identifies the ids operand.
    pub ids: usize,
    pub place: Place,
}

impl PlacedOp {
    /// The table that it gathers rows of.
    pub fn table(&self) -> Option<usize> {
        match self.place {
            Place::Rows(table) => Some(table),
            Place::Expert { .. } | Place::Dense(_) => None,
        }
    }

    /// The dense weight that it multiplies with.
    pub fn dense_weight(&self) -> Option<usize> {
        match self.place {
            Place::Dense(weight) => Some(weight),
            Place::Expert { .. } | Place::Rows(_) => None,
        }
    }
}

/// A piece of a graph. `op` is an index into the streamed nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Nodes without streamed weights.
    Plain(Range<usize>),
    /// Before this node is the moment to guess what later layers will use.
    LookAhead { node: usize, view: View },
    /// The ids of an expert layer are known; its nodes follow, the first one is `op`.
    Layer { op: usize, layer: usize, ops: LayerOps },
    /// One node of the layer that has begun.
    Expert { op: usize, part: usize },
    /// A product with a dense weight.
    Dense { op: usize, weight: usize },
    /// Rows of a table.
    Rows { op: usize, table: usize },
}

/// The segments of a graph of `nodes` nodes, of which `ops` have streamed weights. `entries` are nodes before
/// which to look ahead, in order; behind the last streamed node there is nothing to read ahead for. `parts`
/// gives how many parts an expert of a layer has.
pub(super) fn segments(
    ops: &[PlacedOp],
    entries: Vec<(usize, View)>,
    parts: impl Fn(usize) -> usize,
    nodes: usize,
) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(2 * ops.len() + 2 * entries.len() + 1);
    let plain = |segments: &mut Vec<Segment>, range: Range<usize>| {
        if !range.is_empty() {
            segments.push(Segment::Plain(range));
        }
    };
    let mut entries = entries.into_iter().peekable();
    let (mut cursor, mut current) = (0, None);
    for (op, placed) in ops.iter().enumerate() {
        while let Some((node, view)) = entries.next_if(|(node, _)| *node < placed.node) {
            if node >= cursor {
                plain(&mut segments, cursor..node);
                cursor = node;
                segments.push(Segment::LookAhead { node, view });
            }
        }
        plain(&mut segments, cursor..placed.node);
        cursor = placed.node + 1;
        match placed.place {
            Place::Dense(weight) => segments.push(Segment::Dense { op, weight }),
            Place::Rows(table) => segments.push(Segment::Rows { op, table }),
            Place::Expert { layer, part } => {
                if current.replace((layer, placed.ids)) != Some((layer, placed.ids)) {
                    let ops = ops_of_layer(&ops[op..], layer, placed.ids, parts(layer));
                    segments.push(Segment::Layer { op, layer, ops });
                }
                segments.push(Segment::Expert { op, part });
            }
        }
    }
    plain(&mut segments, cursor..nodes);
    segments
}

/// The nodes of `ops` that belong to a layer and its ids, and the order in which they need parts.
fn ops_of_layer(ops: &[PlacedOp], layer: usize, ids: usize, part_count: usize) -> LayerOps {
    let mut layer_ops = LayerOps { count: 0, parts: Vec::new(), needed: 0 };
    for op in ops {
        if let Place::Expert { layer: of, part } = op.place
            && (of, op.ids) == (layer, ids)
        {
            layer_ops.count += 1;
            if !layer_ops.parts.contains(&part) {
                layer_ops.parts.push(part);
            }
        }
    }
    layer_ops.needed = layer_ops.parts.len();
    // A part that no node of this graph uses is read last: a slot is whole or nothing.
    for part in 0..part_count {
        if !layer_ops.parts.contains(&part) {
            layer_ops.parts.push(part);
        }
    }
    layer_ops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expert(node: usize, ids: usize, layer: usize, part: usize) -> PlacedOp {
        PlacedOp { node, ids, place: Place::Expert { layer, part } }
    }

    fn dense(node: usize, weight: usize) -> PlacedOp {
        PlacedOp { node, ids: 0, place: Place::Dense(weight) }
    }

    fn view(first: usize) -> View {
        View::at_random(first)
    }

    fn layer_ops(count: usize, parts: &[usize], needed: usize) -> LayerOps {
        LayerOps { count, parts: parts.to_vec(), needed }
    }

    #[test]
    fn a_graph_without_streamed_weights_is_one_stretch() {
        assert_eq!(segments(&[], Vec::new(), |_| 3, 7), [Segment::Plain(0..7)]);
        assert!(segments(&[], vec![(2, view(0))], |_| 3, 0).is_empty());
    }

    #[test]
    fn a_layer_begins_once_and_names_the_order_of_its_parts() {
        // Up comes before gate, and no node uses the last part.
        let ops = [expert(4, 9, 0, 1), expert(5, 9, 0, 0), expert(9, 9, 0, 2)];
        let expected = [
            Segment::Plain(0..4),
            Segment::Layer { op: 0, layer: 0, ops: layer_ops(3, &[1, 0, 2, 3], 3) },
            Segment::Expert { op: 0, part: 1 },
            Segment::Expert { op: 1, part: 0 },
            Segment::Plain(6..9),
            Segment::Expert { op: 2, part: 2 },
            Segment::Plain(10..12),
        ];
        assert_eq!(segments(&ops, Vec::new(), |_| 4, 12), expected);
    }

    #[test]
    fn a_dense_weight_between_the_nodes_of_a_layer_does_not_end_it() {
        let ops = [expert(0, 9, 0, 0), dense(1, 5), expert(2, 9, 0, 1), expert(3, 8, 1, 0)];
        let expected = [
            Segment::Layer { op: 0, layer: 0, ops: layer_ops(2, &[0, 1], 2) },
            Segment::Expert { op: 0, part: 0 },
            Segment::Dense { op: 1, weight: 5 },
            Segment::Expert { op: 2, part: 1 },
            Segment::Layer { op: 3, layer: 1, ops: layer_ops(1, &[0, 1], 1) },
            Segment::Expert { op: 3, part: 0 },
        ];
        assert_eq!(segments(&ops, Vec::new(), |_| 2, 4), expected);
    }

    #[test]
    fn the_same_layer_with_other_ids_begins_anew() {
        let ops = [expert(0, 9, 0, 0), expert(1, 7, 0, 0)];
        let begun = segments(&ops, Vec::new(), |_| 1, 2);
        assert_eq!(begun.iter().filter(|segment| matches!(segment, Segment::Layer { .. })).count(), 2);
    }

    #[test]
    fn guesses_are_made_where_a_layer_is_entered_and_not_behind_the_last_one() {
        let ops = [expert(4, 9, 0, 0), expert(8, 8, 1, 0)];
        let entries = vec![(2, view(0)), (4, view(7)), (6, view(1)), (9, view(2))];
        let expected = [
            Segment::Plain(0..2),
            Segment::LookAhead { node: 2, view: view(0) },
            Segment::Plain(2..4),
            Segment::Layer { op: 0, layer: 0, ops: layer_ops(1, &[0], 1) },
            Segment::Expert { op: 0, part: 0 },
            Segment::Plain(5..6),
            Segment::LookAhead { node: 6, view: view(1) },
            Segment::Plain(6..8),
            Segment::Layer { op: 1, layer: 1, ops: layer_ops(1, &[0], 1) },
            Segment::Expert { op: 1, part: 0 },
            Segment::Plain(9..10),
        ];
        // A streamed node that is an entry itself has been computed when its turn comes.
        assert_eq!(segments(&ops, entries, |_| 1, 10), expected);
    }
}
