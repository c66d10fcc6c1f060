//! What is shown, and what keys do.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::document::{ExpertMap, Model, Status};
use super::feed::Seen;

/// Speeds that are remembered of each model, one for each look.
const REMEMBERED: usize = 240;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct App {
    pub address: String,
    /// The latest document, also while nobody answers.
    pub status: Option<Status>,
    /// Why there is no newer one.
    pub trouble: Option<String>,
    seen: Option<Instant>,
    experts: Option<ExpertMap>,
    speeds: HashMap<String, VecDeque<f64>>,
    chosen: Option<String>,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Next,
    Previous,
}

impl App {
    /// Nothing was seen yet.
    pub fn new(address: String) -> Self {
        Self {
            address,
            status: None,
            trouble: None,
            seen: None,
            experts: None,
            speeds: HashMap::new(),
            chosen: None,
        }
    }

    /// Takes over what was seen.
    pub fn see(&mut self, seen: Seen) {
        match seen.status {
            Ok(status) => {
                self.remember(&status);
                (self.status, self.trouble, self.seen) = (Some(status), None, Some(seen.at));
                self.experts = seen.experts;
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    /// How long ago the document was made that is shown.
    pub fn age(&self) -> Option<Duration> {
        self.seen.map(|seen| seen.elapsed())
    }

    fn remember(&mut self, status: &Status) {
        self.speeds.retain(|name, _| status.models.iter().any(|model| model.name == *name));
        for model in &status.models {
            let generating = model.state == "generating";
            let speed = model.decode.as_ref().filter(|_| generating).map_or(0.0, |rates| rates.tokens_per_s);
            let speeds = self.speeds.entry(model.name.clone()).or_default();
            speeds.push_back(speed);
            if speeds.len() > REMEMBERED {
                speeds.pop_front();
            }
        }
    }

    /// The last speeds of a model, oldest first.
    pub fn speeds(&self, model: &str) -> impl Iterator<Item = f64> {
        self.speeds.get(model).into_iter().flatten().copied()
    }

    /// The place of the model whose details are shown: the chosen one, the first that works, the first.
    pub fn selected(&self) -> Option<usize> {
        let models = &self.status.as_ref()?.models;
        let chosen =
            self.chosen.as_ref().and_then(|name| models.iter().position(|model| model.name == *name));
        let busy = || models.iter().position(Model::is_busy);
        chosen.or_else(busy).or(if models.is_empty() { None } else { Some(0) })
    }

    /// That model.
    pub fn model(&self) -> Option<&Model> {
        self.status.as_ref()?.models.get(self.selected()?)
    }

    /// The experts of that model.
    pub fn map(&self) -> Option<&ExpertMap> {
        let name = &self.model()?.name;
        self.experts.as_ref().filter(|map| map.model == *name && map.layers.is_some())
    }

    /// The model whose experts are worth asking for, given this document.
    pub fn wanted_map(&self, status: &Status) -> Option<String> {
        let chosen = self.model().map(|model| model.name.clone());
        let first = || status.models.iter().find(|model| model.is_busy()).or(status.models.first());
        let model = match chosen {
            Some(name) => status.models.iter().find(|model| model.name == name),
            None => first(),
        };
        model
            .filter(|model| model.experts.is_some() && model.mode.ends_with("streaming"))
            .map(|model| model.name.clone())
    }

    /// Moves the choice.
    pub fn step(&mut self, action: Action) {
        let Some(place) = self.selected() else { return };
        let Some(models) = self.status.as_ref().map(|status| &status.models) else { return };
        let next = match action {
            Action::Next => (place + 1) % models.len(),
            Action::Previous => (place + models.len() - 1) % models.len(),
            Action::Quit => return,
        };
        self.chosen = models.get(next).map(|model| model.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, state: &str, speed: f64) -> Model {
        let rates = super::super::document::Rates { tokens_per_s: speed, ..Default::default() };
        Model { name: name.to_owned(), state: state.to_owned(), decode: Some(rates), ..Model::default() }
    }

    fn seen(models: Vec<Model>) -> Seen {
        Seen::now(Status { models, ..Status::default() }, None)
    }

    #[test]
    fn the_model_that_works_is_shown_until_another_is_chosen() {
        let mut app = App::new(String::new());
        assert_eq!(app.selected(), None);
        app.step(Action::Next);
        app.see(seen(vec![model("a", "idle", 1.0), model("b", "generating", 2.0)]));
        assert_eq!(app.selected(), Some(1));
        app.step(Action::Next);
        assert_eq!(app.selected(), Some(0));
        app.step(Action::Previous);
        assert_eq!(app.selected(), Some(1));
        // The chosen one is gone.
        app.see(seen(vec![model("a", "idle", 1.0)]));
        assert_eq!(app.selected(), Some(0));
    }

    #[test]
    fn speeds_are_remembered_while_a_model_is_there() {
        let mut app = App::new(String::new());
        for speed in [1.0, 2.0] {
            app.see(seen(vec![model("a", "generating", speed)]));
        }
        app.see(seen(vec![model("a", "idle", 2.0)]));
        assert_eq!(app.speeds("a").collect::<Vec<_>>(), [1.0, 2.0, 0.0]);
        app.see(Seen { at: Instant::now(), status: Err("gone".to_owned()), experts: None });
        assert_eq!((app.trouble.as_deref(), app.status.is_some()), (Some("gone"), true));
        app.see(seen(Vec::new()));
        assert_eq!((app.speeds("a").count(), app.trouble.as_deref()), (0, None));
    }
}
