//! Lists of models, without changes.

use http::StatusCode;
use serde_json::json;

use crate::kit::{Kit, Setup, post};

#[tokio::test]
async fn models_tags() {
    let kit = Kit::new();
    let answer = kit.get("/api/tags").await.json();
    let first = &answer["models"][0];
    assert_eq!((&first["name"], &first["model"]), (&json!("m:latest"), &json!("m:latest")));
    let digest = first["digest"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(first["size"], 1234);
    for key in ["parent_model", "format", "family", "families", "parameter_size", "quantization_level"] {
        assert!(!first["details"][key].is_null(), "{key}");
    }
    assert_eq!(first["capabilities"], json!(["completion", "tools", "insert", "thinking"]));
    let none = Setup { models: Vec::new(), ..Setup::default() }.start();
    assert_eq!(none.get("/api/tags").await.json(), json!({"models": []}));
}

#[tokio::test]
async fn models_ps_tells_what_is_held() {
    let kit = Kit::new();
    assert_eq!(kit.get("/api/ps").await.json(), json!({"models": []}));
    kit.post("/api/generate", json!({"model": "m", "keep_alive": 60})).await;
    kit.post("/api/generate", json!({"model": "plain", "keep_alive": -1})).await;
    let answer = kit.get("/api/ps").await.json();
    let models = answer["models"].as_array().unwrap();
    assert_eq!((&models[0]["name"], &models[1]["name"]), (&json!("plain:latest"), &json!("m:latest")));
    assert_eq!((&models[1]["size"], &models[1]["size_vram"]), (&json!(100), &json!(0)));
    assert_eq!(models[1]["context_length"], 4096);
    assert_eq!(models[1]["hypura"]["file_bytes"], 200);
    assert_eq!(models[1]["hypura"]["tiers"], json!({"GPU": 0, "RAM": 100, "NVMe": 100}));
    let expires: Vec<jiff::Timestamp> =
        models.iter().map(|model| model["expires_at"].as_str().unwrap().parse().unwrap()).collect();
    let now = jiff::Timestamp::now();
    assert!(expires[0].duration_since(now).as_secs() > 280 * 365 * 86_400, "for ever");
    let left = expires[1].duration_since(now).as_secs();
    assert!((1..=60).contains(&left), "{left}");
}

#[tokio::test]
async fn models_show() {
    let kit = Kit::new();
    for body in [json!({"model": "m"}), json!({"name": "M"})] {
        let answer = kit.post("/api/show", body).await.json();
        assert_eq!(answer["model_info"]["general.architecture"], "fake");
        assert_eq!(answer["model_info"]["fake.context_length"], 4096);
        assert_eq!(answer["details"]["family"], "fake");
        assert!(answer["capabilities"].is_array() && answer["tensors"].is_array());
        assert!(answer["modelfile"].is_string() && answer["template"].is_string());
        assert!(answer["modified_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }
    let mut copilot = post("/api/show", json!({"model": "M:latest"}));
    copilot.headers_mut().insert("user-agent", "GitHubCopilotChat/1.0".parse().unwrap());
    assert_eq!(kit.send(copilot).await.json()["model_info"]["general.basename"], "M:latest");
}

#[tokio::test]
async fn names_show() {
    let kit = Kit::new();
    for (name, status, error) in [
        ("", StatusCode::BAD_REQUEST, "model is required"),
        ("a b", StatusCode::BAD_REQUEST, "invalid model name"),
        ("x", StatusCode::NOT_FOUND, "model 'x:latest' not found"),
        ("x:y", StatusCode::NOT_FOUND, "model 'x:y' not found"),
    ] {
        let answer = kit.post("/api/show", json!({"model": name})).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error));
    }
}
