//! The life of models: load, keep, unload, share one memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::ManagerSettings;
use hypura_store::ModelEntry;
use serde_json::{Value, json};

use crate::fake::Step;
use crate::fake_catalog::entry;
use crate::kit::{Kit, Setup, post, read, until};

fn manager(change: impl FnOnce(&mut ManagerSettings)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.manager);
    setup
}

fn names(kit: &Kit) -> Vec<String> {
    let mut names: Vec<String> =
        kit.server.models.running().iter().map(|model| model.entry.name.to_string()).collect();
    names.sort();
    names
}

async fn use_model(kit: &Kit, name: &str, keep_alive: Value) -> StatusCode {
    kit.post("/api/generate", json!({"model": name, "prompt": "x", "keep_alive": keep_alive})).await.status
}

#[tokio::test]
async fn keep_alive_6_bad_values_are_refused() {
    let kit = Kit::new();
    for bad in [json!("soon"), json!("3x"), json!(true), json!({})] {
        assert_eq!(use_model(&kit, "m", bad).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(use_model(&kit, "m", json!("300")).await, StatusCode::OK, "what it means is plain");
}

#[tokio::test]
async fn keep_alive_6_zero_leaves_after_the_request() {
    let kit = Kit::new();
    assert_eq!(use_model(&kit, "m", json!(0)).await, StatusCode::OK);
    until("gone", || names(&kit).is_empty()).await;
    until("freed", || kit.script.stops.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn keep_alive_6_the_time_begins_when_a_request_ends() {
    let kit = Kit::answering(&[Step::Text("a"), Step::Wait]);
    kit.script.gate.shut();
    let response =
        kit.start(post("/api/generate", json!({"model": "m", "prompt": "x", "keep_alive": "1ms"}))).await;
    // Long over by now, if it had begun.
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(names(&kit), ["m:latest"]);
    kit.script.gate.open();
    read(response).await;
    until("gone", || names(&kit).is_empty()).await;
}

#[tokio::test]
async fn keep_alive_6_the_latest_request_decides_and_the_default_stands_in() {
    let kit = manager(|manager| manager.keep_alive = KeepAlive::For(Duration::from_secs(60))).start();
    use_model(&kit, "m", json!(null)).await;
    let left = |kit: &Kit| {
        let at = kit.server.models.running()[0].expires_at;
        at.duration_since(std::time::SystemTime::now()).unwrap().as_secs()
    };
    until("idle", || (50..=60).contains(&left(&kit))).await;
    use_model(&kit, "m", json!("2h")).await;
    until("idle", || (7100..=7200).contains(&left(&kit))).await;
    use_model(&kit, "m", json!(-1)).await;
    assert!(left(&kit) > 20 * 365 * 86_400);
}

#[tokio::test]
async fn life_one_load_serves_all_who_wait_and_there_are_never_two() {
    let kit = Arc::new(Kit::new());
    kit.script.load_gate.shut();
    let tasks: Vec<_> = ["m", "m", "plain"]
        .into_iter()
        .map(|name| {
            let kit = Arc::clone(&kit);
            tokio::spawn(async move { use_model(&kit, name, json!(null)).await })
        })
        .collect();
    until("loading", || kit.server.models.loading().is_some()).await;
    kit.script.load_gate.open();
    for task in tasks {
        assert_eq!(task.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(kit.script.loads.load(Ordering::SeqCst), 2);
    assert_eq!(kit.script.most_loading.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn life_the_least_recently_used_leaves_for_memory() {
    let kit = manager(|manager| manager.budget_bytes = 250).start();
    for name in ["m", "plain", "m"] {
        use_model(&kit, name, json!(-1)).await;
    }
    let answer = kit.post("/api/embed", json!({"model": "vec", "input": "x"})).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(names(&kit), ["m:latest", "vec:latest"]);
}

#[tokio::test]
async fn life_a_model_at_work_is_waited_for() {
    let kit = Arc::new(
        Setup { steps: vec![Step::Text("a"), Step::Wait], ..manager(|manager| manager.budget_bytes = 110) }
            .start(),
    );
    kit.script.gate.shut();
    let first = kit.start(post("/api/generate", json!({"model": "m", "prompt": "x"}))).await;
    let other = Arc::clone(&kit);
    let second = tokio::spawn(async move { use_model(&other, "plain", json!(null)).await });
    until("the second waits", || kit.server.models.loading().is_some()).await;
    assert_eq!(names(&kit), ["m:latest"]);
    kit.script.gate.open();
    read(first).await;
    assert_eq!(second.await.unwrap(), StatusCode::OK);
    assert_eq!(names(&kit), ["plain:latest"]);
}

#[tokio::test]
async fn life_what_cannot_fit_says_so() {
    let kit = manager(|manager| manager.budget_bytes = 10).start();
    let answer = kit.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.error(), "model needs 100 bytes");
}

#[tokio::test]
async fn life_a_large_model_streams_in_what_there_is() {
    let kit = Kit::new();
    kit.script.sizes.lock().unwrap().insert("m:latest".into(), 3000);
    assert_eq!(use_model(&kit, "m", json!(null)).await, StatusCode::OK);
    assert_eq!(kit.get("/api/ps").await.json()["models"][0]["size"], 1000);
}

#[tokio::test]
async fn keep_alive_6_max_loaded_models() {
    let kit = manager(|manager| manager.max_loaded = 1).start();
    use_model(&kit, "m", json!(-1)).await;
    use_model(&kit, "plain", json!(-1)).await;
    assert_eq!(names(&kit), ["plain:latest"]);
}

#[tokio::test]
async fn keep_alive_6_too_many_that_wait_are_503() {
    let kit = Arc::new(manager(|manager| manager.max_queue = 1).start());
    kit.script.load_gate.shut();
    let other = Arc::clone(&kit);
    let first = tokio::spawn(async move { use_model(&other, "m", json!(null)).await });
    until("loading", || kit.server.models.loading().is_some()).await;
    let answer = kit.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.error(), "server busy, please try again.  maximum pending requests exceeded");
    kit.script.load_gate.open();
    assert_eq!(first.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn keep_alive_6_a_load_without_progress_fails_its_requests() {
    let kit = manager(|manager| manager.load_timeout = Duration::from_millis(20)).start();
    kit.script.load_gate.shut();
    let answer = kit.post("/api/generate", json!({"model": "m", "prompt": "x"})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.error().contains("timed out"));
    kit.script.load_gate.open();
}

#[tokio::test]
async fn life_a_replaced_file_is_loaded_anew_and_a_deleted_one_is_not_found() {
    let kit = Kit::new();
    use_model(&kit, "m", json!(-1)).await;
    let replaced = ModelEntry { weights: "other".into(), ..entry("m") };
    *kit.catalog.models.lock().unwrap() = vec![Arc::new(replaced)];
    assert_eq!(use_model(&kit, "m", json!(-1)).await, StatusCode::OK);
    assert_eq!(kit.script.loads.load(Ordering::SeqCst), 2);
    assert_eq!(names(&kit), ["m:latest"]);
    kit.catalog.models.lock().unwrap().clear();
    assert_eq!(use_model(&kit, "m", json!(null)).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn life_two_names_of_one_file_share_it() {
    let alias = ModelEntry { weights: "m".into(), ..entry("alias") };
    let kit = Setup { models: vec![entry("m"), alias], ..Setup::default() }.start();
    use_model(&kit, "m", json!(null)).await;
    use_model(&kit, "alias", json!(null)).await;
    assert_eq!(kit.script.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn habits_health_is_503_while_the_first_model_loads() {
    let kit = Arc::new(Kit::new());
    kit.script.load_gate.shut();
    let other = Arc::clone(&kit);
    let first = tokio::spawn(async move { use_model(&other, "m", json!(null)).await });
    until("loading", || kit.server.models.loading().is_some()).await;
    assert_eq!(kit.get("/health").await.status, StatusCode::SERVICE_UNAVAILABLE);
    kit.script.load_gate.open();
    first.await.unwrap();
    assert_eq!(kit.get("/health").await.status, StatusCode::OK);
}
