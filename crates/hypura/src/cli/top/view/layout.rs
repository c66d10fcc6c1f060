//! What goes where. Small terminals lose the map first, then the machine, then borders.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Widget as _, Wrap};

use super::paint::DIM;
use super::{experts, header, live, machine, models};
use crate::cli::top::app::App;

/// From here on there is room for borders.
const FRAMED: (u16, u16) = (60, 20);
/// From here on live numbers and the map stand side by side.
const SIDE_BY_SIDE: u16 = 110;
/// Lines of the live numbers that are worth having.
const LIVE: u16 = 8;
/// Least lines of a map.
const LEAST_MAP: u16 = 4;
const KEYS: &str = " q quit  ↑↓ model ";

/// Draws all of it.
pub(in crate::cli::top) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    header::header(app).render(top, buffer);
    let rest = match header::trouble(app) {
        Some(lines) => {
            let height = if app.status.is_some() { 3 } else { rest.height };
            let [above, below] =
                Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(rest);
            Paragraph::new(lines).wrap(Wrap { trim: true }).render(above, buffer);
            below
        }
        None => rest,
    };
    if app.status.is_none() {
        if app.trouble.is_none() {
            Line::styled("asking the server …", DIM).render(rest, buffer);
        }
        return;
    }
    if area.width >= FRAMED.0 && area.height >= FRAMED.1 {
        framed(app, rest, buffer)
    } else {
        plain(app, rest, buffer)
    }
}

/// A block with a title; gives the room in it.
fn block(title: &str, keys: bool, area: Rect, buffer: &mut Buffer) -> Rect {
    let mut block = Block::new().borders(Borders::TOP).border_style(DIM).title(format!(" {title} "));
    if keys {
        block = block.title(Line::styled(KEYS, DIM).right_aligned());
    }
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}

fn lines(lines: Vec<Line<'static>>, area: Rect, buffer: &mut Buffer) {
    Paragraph::new(lines).render(area, buffer);
}

fn framed(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some(status) = &app.status else { return };
    let width = usize::from(area.width);
    let of_machine = machine::machine(status, width);
    let machine_height = of_machine.len() as u16 + 1;
    let wanted = (status.models.len() as u16 * 2).max(1) + 1;
    let models_height = wanted.min((area.height / 3).max(3));
    let [first, second, third] = Layout::vertical([
        Constraint::Length(machine_height),
        Constraint::Length(models_height),
        Constraint::Fill(1),
    ])
    .areas(area);
    lines(of_machine, block("Machine", true, first, buffer), buffer);
    let inner = block("Models", false, second, buffer);
    lines(models::models(app, width, usize::from(inner.height)), inner, buffer);
    details(app, third, buffer);
}

/// Live numbers and the map of the chosen model.
fn details(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some(model) = app.model() else { return };
    let map = app.map();
    let wide = area.width >= SIDE_BY_SIDE;
    let numbers =
        live::live(app, model, usize::from(if map.is_some() && wide { area.width / 2 } else { area.width }));
    let height = (numbers.len() as u16 + 1).min(area.height);
    let room = wide || area.height >= height.max(LIVE) + LEAST_MAP;
    let (live_area, map_area) = match map.filter(|_| room) {
        None => (area, Rect::default()),
        Some(_) if wide => {
            let [left, right] =
                Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(area);
            (left, right)
        }
        Some(_) => {
            let [above, below] =
                Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
            (above, below)
        }
    };
    lines(numbers, block(&model.name, false, live_area, buffer), buffer);
    if let Some(map) = map.filter(|_| map_area.height > 0) {
        let inner = block("Experts", false, map_area, buffer);
        let (width, height) = (usize::from(inner.width), usize::from(inner.height));
        lines(experts::experts(map, model.experts.as_ref(), width, height), inner, buffer);
    }
}

/// Without borders: models, then the chosen one, then the machine, as far as there is room.
fn plain(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some(status) = &app.status else { return };
    let width = usize::from(area.width);
    let height = usize::from(area.height);
    let mut all = machine::machine(status, width);
    all.truncate(if height < 6 { 0 } else { 1 });
    let for_models = (height / 3).max(1);
    let mut of_models = models::models(app, width, for_models);
    of_models.truncate(for_models);
    all.extend(of_models);
    all.extend(app.model().into_iter().flat_map(|model| live::live(app, model, width)));
    lines(all, area, buffer);
}

/// The same as plain text of this width, as long as it takes.
pub(in crate::cli::top) fn text(app: &App, width: u16) -> String {
    let models = app.status.as_ref().map_or(0, |status| status.models.len() as u16);
    let numbers = app.model().map_or(0, |model| live::live(app, model, usize::from(width)).len() as u16);
    let layers = app.map().and_then(|map| map.layers.as_ref()).map_or(0, |layers| layers.len() as u16 + 4);
    // The least that is drawn with borders.
    let height = (12 + models * 2 + numbers + layers).max(FRAMED.1).max(models * 6 + 9);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(app, area, &mut buffer);
    let rows = (0..height).map(|row| {
        let cells = (0..width).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().replace(KEYS.trim(), "")
    });
    let text: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
    let last = text.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1);
    text[..last].join("\n") + "\n"
}
