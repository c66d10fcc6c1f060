//! The first line, and what is said when nobody answers.

use ratatui::text::{Line, Span};

use super::paint::{BOLD, DIM, TROUBLE};
use super::words::{self, count, span};
use crate::cli::top::app::App;

/// Which server, and what it did.
pub(super) fn header(app: &App) -> Line<'static> {
    let mut line = vec![Span::styled("hypura top", BOLD), Span::raw(format!("  {}", app.address))];
    if let Some(status) = &app.status {
        let requests = &status.requests;
        line.push(Span::raw(format!("  {}, up {}", status.version, span(status.uptime_s))));
        line.push(Span::styled(format!("  {}", words::requests(requests.total)), DIM));
        if requests.failed > 0 {
            line.push(Span::styled(format!(", {} failed", count(requests.failed)), DIM));
        }
    }
    Line::from(line)
}

/// Why there is nothing newer.
pub(super) fn trouble(app: &App) -> Option<Vec<Line<'static>>> {
    let why = app.trouble.clone()?;
    let age = app.age().map(|age| format!("What is shown is {} old. ", span(age.as_secs_f64())));
    Some(vec![
        Line::from(Span::styled(why, TROUBLE)),
        Line::from(Span::styled(format!("{}Trying again.", age.unwrap_or_default()), DIM)),
    ])
}
