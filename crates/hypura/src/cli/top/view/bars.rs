//! Bars and sparklines of letters.

use ratatui::style::Style;
use ratatui::text::Span;

/// Heights of a sparkline.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar of parts of a whole, in as many letters as `width`: each part its own sign, the rest dots. A part
/// that is not nothing has a letter, as long as there are any.
pub(super) fn parts(width: usize, whole: u64, parts: &[(u64, char, Style)]) -> Vec<Span<'static>> {
    let mut left = width;
    let mut spans = Vec::new();
    for (bytes, sign, style) in parts.iter().filter(|(bytes, ..)| *bytes > 0) {
        let share = *bytes as f64 / whole.max(1) as f64;
        let letters = ((share * width as f64).round() as usize).max(1).min(left);
        left -= letters;
        spans.push(Span::styled(sign.to_string().repeat(letters), *style));
    }
    spans.push(Span::styled("·".repeat(left), super::paint::DIM));
    spans
}

/// The last values as a line of this width, scaled to the largest of them.
pub(super) fn sparkline(width: usize, values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let shown = &values[values.len().saturating_sub(width)..];
    let most = shown.iter().copied().fold(0.0, f64::max);
    let height = |value: &f64| {
        if most <= 0.0 || *value <= 0.0 {
            return ' ';
        }
        let step = (value / most * HEIGHTS.len() as f64).ceil() as usize;
        HEIGHTS[step.clamp(1, HEIGHTS.len()) - 1]
    };
    let line: String = shown.iter().map(height).collect();
    format!("{line:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(width: usize, whole: u64, all: &[u64]) -> String {
        let signs = ['#', '='];
        let all: Vec<_> = all.iter().zip(signs).map(|(bytes, sign)| (*bytes, sign, Style::new())).collect();
        parts(width, whole, &all).iter().map(|span| span.content.to_string()).collect()
    }

    #[test]
    fn bars_are_as_wide_as_they_shall_be() {
        assert_eq!(bar(10, 100, &[50, 20]), "#####==···");
        assert_eq!(bar(10, 100, &[1, 0]), "#·········");
        assert_eq!(bar(10, 100, &[100, 50]), "##########");
        assert_eq!(bar(4, 0, &[7]), "####");
        assert_eq!(bar(0, 5, &[7]), "");
    }

    #[test]
    fn sparklines_end_with_the_latest() {
        assert_eq!(sparkline(5, [1.0, 2.0, 4.0].into_iter()), "  ▂▄█");
        assert_eq!(sparkline(2, [1.0, 2.0, 4.0].into_iter()), "▄█");
        assert_eq!(sparkline(3, [0.0, 0.0].into_iter()), "   ");
        assert_eq!(sparkline(3, std::iter::empty()), "   ");
    }
}
