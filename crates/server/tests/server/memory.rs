//! One memory for all models: who was promised what, and what becomes of models that die, wait or are no
//! longer wanted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use hypura_engine::serve::Totals;
use hypura_engine::stream::Held;
use serde_json::json;

use crate::fake::Step;
use crate::kit::{Kit, Setup, post, read, until};

async fn use_model(kit: &Kit, name: &str) -> StatusCode {
    kit.post("/api/generate", json!({"model": name, "prompt": "x", "keep_alive": -1})).await.status
}

fn names(kit: &Kit) -> Vec<String> {
    let mut names: Vec<String> =
        kit.server.models.running().iter().map(|model| model.entry.name.to_string()).collect();
    names.sort();
    names
}

fn budget(bytes: u64) -> Setup {
    let mut setup = Setup::default();
    setup.manager.budget_bytes = bytes;
    setup
}

#[tokio::test]
async fn memory_a_context_is_promised_only_what_no_model_holds() {
    let kit = budget(1000).start();
    use_model(&kit, "m").await;
    let memory = kit.script.memory.lock().unwrap().clone().unwrap();
    assert_eq!(memory.free_bytes(), 900);
    use_model(&kit, "plain").await;
    assert_eq!(memory.free_bytes(), 800, "less since another model came");
    assert_eq!(memory.reserve(500), 500);
    assert_eq!((memory.free_bytes(), memory.reserve(900)), (300, 300));
    memory.release(300);
    // What was promised is not planned with: of 300 bytes a model of 600 can only stream.
    kit.script.sizes.lock().unwrap().insert("vec:latest".into(), 250);
    let answer = kit.post("/api/embed", json!({"model": "vec", "input": "x"})).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!((names(&kit).len(), memory.free_bytes()), (3, 50));
    memory.release(500);
    assert_eq!(memory.free_bytes(), 550);
}

#[tokio::test]
async fn memory_nothing_is_promised_of_what_a_load_in_progress_will_hold() {
    let kit = Arc::new(budget(1000).start());
    use_model(&kit, "m").await;
    let memory = kit.script.memory.lock().unwrap().clone().unwrap();
    kit.script.sizes.lock().unwrap().insert("plain:latest".into(), 700);
    kit.script.load_gate.shut();
    let other = Arc::clone(&kit);
    let second = tokio::spawn(async move { use_model(&other, "plain").await });
    until("it loads", || kit.script.loading_now.load(Ordering::SeqCst) == 1).await;
    assert_eq!(memory.free_bytes(), 200);
    assert_eq!(memory.reserve(500), 200);
    memory.release(200);
    kit.script.load_gate.open();
    assert_eq!(second.await.unwrap(), StatusCode::OK);
    assert_eq!(memory.free_bytes(), 200);
}

#[tokio::test]
async fn memory_a_load_that_failed_gives_its_promise_back() {
    let kit = budget(1000).start();
    use_model(&kit, "m").await;
    let memory = kit.script.memory.lock().unwrap().clone().unwrap();
    *kit.script.fail_load.lock().unwrap() = Some("no");
    assert_eq!(use_model(&kit, "plain").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(memory.free_bytes(), 900);
}

#[tokio::test]
async fn life_a_dead_engine_is_replaced_by_the_next_request() {
    let kit = budget(150).start();
    use_model(&kit, "m").await;
    kit.script.dead_before.store(1, Ordering::SeqCst);
    assert!(names(&kit).is_empty(), "what is dead is not running");
    assert_eq!(use_model(&kit, "m").await, StatusCode::OK);
    assert_eq!(kit.script.loads.load(Ordering::SeqCst), 2);
    assert_eq!(names(&kit), ["m:latest"]);
    until("the dead one is freed", || kit.script.stops.load(Ordering::SeqCst) == 1).await;
}

/// What the one loaded model holds.
fn only_bytes(kit: &Kit) -> u64 {
    let running = kit.server.models.running();
    assert_eq!(running.len(), 1);
    running[0].status.memory_bytes
}

/// A model that came while another one was being unloaded streamed for ever, with half of the memory free.
#[tokio::test]
async fn memory_that_a_leaving_model_is_about_to_free_is_planned_with() {
    let kit = Arc::new(budget(150).start());
    use_model(&kit, "m").await;
    kit.script.stop_gate.shut();
    kit.post("/api/generate", json!({"model": "m", "keep_alive": 0})).await;
    let other = Arc::clone(&kit);
    let second = tokio::spawn(async move { use_model(&other, "plain").await });
    until("it is its turn", || kit.server.models.loading().is_some()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(kit.script.planned.load(Ordering::SeqCst), 1, "not before the other has left");
    kit.script.stop_gate.open();
    assert_eq!(second.await.unwrap(), StatusCode::OK);
    assert_eq!(only_bytes(&kit), 100, "it does not stream");
}

/// The same where the other one is gone before the plan is there: of what was free then, there is more now.
#[tokio::test]
async fn memory_that_came_free_while_a_model_was_planned_refuses_and_streams_nothing() {
    for (others, wanted) in [(140, "refused"), (100, "streamed")] {
        let kit = Arc::new(budget(150).start());
        kit.script.sizes.lock().unwrap().insert("m:latest".into(), others);
        use_model(&kit, "m").await;
        kit.script.plan_gate.shut();
        let other = Arc::clone(&kit);
        let second = tokio::spawn(async move { use_model(&other, "plain").await });
        until("it is planned", || kit.script.planned.load(Ordering::SeqCst) == 2).await;
        kit.post("/api/generate", json!({"model": "m", "keep_alive": 0})).await;
        until("the other is gone", || kit.script.stops.load(Ordering::SeqCst) == 1).await;
        kit.script.plan_gate.open();
        assert_eq!(second.await.unwrap(), StatusCode::OK, "it was {wanted}");
        assert_eq!(only_bytes(&kit), 100, "it was {wanted}");
    }
}

/// The memory of a model that could not answer any more counted as free while its process still had it.
#[tokio::test]
async fn memory_of_a_dead_engine_is_free_once_it_is_gone() {
    let kit = Arc::new(budget(150).start());
    use_model(&kit, "m").await;
    kit.script.dead_before.store(1, Ordering::SeqCst);
    kit.script.stop_gate.shut();
    let other = Arc::clone(&kit);
    let second = tokio::spawn(async move { use_model(&other, "plain").await });
    until("it is its turn", || kit.server.models.loading().is_some()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(kit.script.loads.load(Ordering::SeqCst), 1, "nothing is loaded over it");
    kit.script.stop_gate.open();
    assert_eq!(second.await.unwrap(), StatusCode::OK);
    assert_eq!(only_bytes(&kit), 100);
}

#[tokio::test]
async fn life_waiting_for_a_model_at_work_is_no_load_without_progress() {
    let mut setup = Setup { steps: vec![Step::Text("a"), Step::Wait], ..budget(110) };
    setup.manager.load_timeout = Duration::from_millis(20);
    let kit = Arc::new(setup.start());
    kit.script.gate.shut();
    let first = kit.start(post("/api/generate", json!({"model": "m", "prompt": "x"}))).await;
    let other = Arc::clone(&kit);
    let second = tokio::spawn(async move { use_model(&other, "plain").await });
    // Many times as long as a load may take without progress.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!second.is_finished());
    kit.script.gate.open();
    read(first).await;
    assert_eq!(second.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn life_a_model_that_nobody_wants_any_more_pushes_nobody_out() {
    let kit = Arc::new(Setup { steps: vec![Step::Text("a"), Step::Wait], ..budget(110) }.start());
    kit.script.gate.shut();
    let first =
        kit.start(post("/api/generate", json!({"model": "m", "prompt": "x", "keep_alive": -1}))).await;
    let other = Arc::clone(&kit);
    let second = tokio::spawn(async move { use_model(&other, "plain").await });
    until("the second waits", || kit.server.models.loading().is_some()).await;
    second.abort();
    until("it is given up", || kit.server.models.loading().is_none()).await;
    kit.script.gate.open();
    read(first).await;
    assert_eq!(names(&kit), ["m:latest"]);
    assert_eq!(kit.script.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn life_closing_waits_for_a_load_in_progress_and_nothing_lands_afterwards() {
    let kit = Arc::new(Kit::new());
    kit.script.load_gate.shut();
    let other = Arc::clone(&kit);
    let first = tokio::spawn(async move { use_model(&other, "m").await });
    until("loading", || kit.script.loading_now.load(Ordering::SeqCst) == 1).await;
    let server = Arc::clone(&kit.server);
    let closing = tokio::task::spawn_blocking(move || server.models.close(true));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished(), "the load still holds memory");
    kit.script.load_gate.open();
    closing.await.unwrap();
    assert_eq!(first.await.unwrap(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(names(&kit).is_empty() && kit.server.models.loading().is_none());
}

#[tokio::test]
async fn metrics_show_what_is_held_and_what_was_shared() {
    let kit = Kit::new();
    use_model(&kit, "m").await;
    {
        let mut status = kit.script.status.lock().unwrap();
        status.held = Held { pins: 3, loading_slots: 1, cells: 5, reads: 2 };
        status.totals = Totals { saved_bytes: 77, ..Totals::default() };
    }
    let answer = kit.get("/metrics").await;
    for line in [
        "hypura_held_pins{model=\"m:latest\"} 3",
        "hypura_held_loading_slots{model=\"m:latest\"} 1",
        "hypura_held_cells{model=\"m:latest\"} 5",
        "hypura_held_reads{model=\"m:latest\"} 2",
        "hypura_shared_bytes_total{model=\"m:latest\"} 77",
        "hypura_disk_weight_bytes{model=\"m:latest\"} 100",
    ] {
        assert!(answer.text().contains(line), "{line} is not in {}", answer.text());
    }
    assert_eq!(kit.get("/api/ps").await.json()["models"][0]["hypura"]["tiers"]["NVMe"], 100);
}
