//! The map of experts: layers down, experts across. Where there are more than letters, a letter stands for
//! the most active of several.

use ratatui::text::{Line, Span};

use super::paint::DIM;
use crate::cli::top::document::{ExpertMap, Experts};

/// On the disk, in memory, used lately, used by the last step.
const SIGNS: [char; 4] = ['·', '░', '▒', '█'];

/// What the signs mean.
pub(super) const LEGEND: &str = "█ used now  ▒ lately  ░ in memory  · on disk";

/// Lines of a map that fits the area.
pub(super) fn experts(
    map: &ExpertMap,
    facts: Option<&Experts>,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let Some(layers) = map.layers.as_ref().filter(|layers| !layers.is_empty()) else { return Vec::new() };
    if height < 2 || width == 0 {
        return Vec::new();
    }
    let mut lines = vec![Line::from(Span::styled(LEGEND, DIM))];
    let room = height - 1 - usize::from(facts.is_some() && height > 3);
    let rows: Vec<Vec<u8>> = layers.iter().map(|row| digits(&row.experts)).collect();
    for group in groups(rows.len(), room) {
        lines.push(Line::from(row(&rows[group], width)));
    }
    if let Some(facts) = facts.filter(|_| height > 3) {
        let words = format!(
            "{} layers × {} experts, {} used for each token",
            layers.len(),
            facts.per_layer,
            facts.used
        );
        lines.push(Line::from(Span::styled(words, DIM)));
    }
    lines
}

fn digits(text: &str) -> Vec<u8> {
    text.bytes().map(|digit| digit.saturating_sub(b'0').min(3)).collect()
}

/// Divides `count` things into at most `most` groups of neighbours, as equal as they can be.
fn groups(count: usize, most: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let number = count.min(most);
    (0..number).map(move |group| group * count / number..(group + 1) * count / number)
}

/// Some layers as one row of letters.
fn row(layers: &[Vec<u8>], width: usize) -> String {
    let count = layers.iter().map(Vec::len).max().unwrap_or(0);
    let most = |range: &std::ops::Range<usize>| {
        let of_layer = |layer: &Vec<u8>| layer.get(range.clone()).and_then(|part| part.iter().max().copied());
        layers.iter().filter_map(of_layer).max().unwrap_or(0)
    };
    groups(count, width).map(|range| SIGNS[usize::from(most(&range))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::document::ExpertRow;

    fn map(rows: &[&str]) -> ExpertMap {
        let layers = rows.iter().map(|row| ExpertRow { experts: (*row).to_owned() });
        ExpertMap { model: String::new(), layers: Some(layers.collect()) }
    }

    fn shown(rows: &[&str], width: usize, height: usize) -> Vec<String> {
        let lines = experts(&map(rows), None, width, height);
        lines.iter().skip(1).map(ToString::to_string).collect()
    }

    #[test]
    fn a_letter_is_an_expert_or_the_most_active_of_several() {
        assert_eq!(shown(&["0123", "3000"], 10, 10), ["·░▒█", "█···"]);
        assert_eq!(shown(&["0123", "3000"], 2, 10), ["░█", "█·"]);
        assert_eq!(shown(&["0123", "3000"], 10, 2), ["█░▒█"]);
        assert_eq!(shown(&["0123"], 10, 1), Vec::<String>::new());
        assert_eq!(shown(&["01?"], 10, 4), ["·░█"]);
        assert_eq!(shown(&[], 10, 4), Vec::<String>::new());
    }

    #[test]
    fn all_experts_are_in_a_group() {
        for count in 1..40 {
            for most in 1..20 {
                let all: Vec<usize> = groups(count, most).flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
