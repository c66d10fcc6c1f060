//! Colours, by what they mean. They carry nothing that letters do not say too.

use ratatui::style::{Color, Modifier, Style};

/// Of second rank.
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// Something is wrong.
pub(super) const TROUBLE: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// At work.
pub(super) const BUSY: Style = Style::new().fg(Color::Green);
pub(super) const GPU: Style = Style::new().fg(Color::Green);
pub(super) const RAM: Style = Style::new().fg(Color::Cyan);
pub(super) const WORKER: Style = Style::new().fg(Color::Magenta);
pub(super) const NVME: Style = Style::new().fg(Color::Yellow);
