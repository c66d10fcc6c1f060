//! The page at `/ui`, and who gets it.

use http::{HeaderMap, StatusCode, header};

use crate::kit::{Kit, Setup, request};

async fn get(kit: &Kit, path: &str, headers: &[(header::HeaderName, &str)]) -> crate::kit::Answer {
    let mut request = request(http::Method::GET, path, "");
    for (name, value) in headers {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    kit.send(request).await
}

fn value(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn page_browsers_are_sent_there_and_programs_get_the_old_text() {
    let kit = Kit::new();
    let browser = get(&kit, "/", &[(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")]).await;
    assert_eq!((browser.status, browser.header("location")), (StatusCode::FOUND, "/ui"));
    assert_eq!(browser.header("vary"), "Accept");
    for accept in ["*/*", "application/json", ""] {
        let program = get(&kit, "/", &[(header::ACCEPT, accept)]).await;
        assert_eq!((program.status, program.text()), (StatusCode::OK, "Ollama is running"), "{accept}");
    }
}

#[tokio::test]
async fn page_is_strict_and_its_files_are_kept_for_ever() {
    let kit = Kit::new();
    let page = kit.get("/ui").await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(
        (page.header("cache-control"), page.header("x-content-type-options")),
        ("no-cache", "nosniff")
    );
    assert_eq!(kit.get("/ui/").await.body, page.body);
    let files: Vec<&str> = page.text().split('"').filter(|part| part.starts_with("/ui/")).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        let plain = kit.get(file).await;
        assert_eq!(plain.status, StatusCode::OK, "{file}");
        assert!(plain.header("cache-control").contains("immutable"), "{file}");
        let zipped = get(&kit, file, &[(header::ACCEPT_ENCODING, "br, gzip")]).await;
        assert_eq!(zipped.header("content-encoding"), "gzip");
        assert!(zipped.body.len() < plain.body.len(), "{file}");
        let etag = value(&plain.headers, header::ETAG);
        let again = get(&kit, file, &[(header::IF_NONE_MATCH, &etag)]).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    assert_eq!(kit.get("/ui/nothing.js").await.status, StatusCode::NOT_FOUND);
    assert_eq!(kit.get("/ui/../api/tags").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn page_needs_no_key_and_what_it_asks_does() {
    let mut setup = Setup::default();
    setup.http.api_key = Some("secret".to_owned());
    let kit = setup.start();
    let page = kit.get("/ui").await;
    assert_eq!(page.status, StatusCode::OK);
    for file in page.text().split('"').filter(|part| part.starts_with("/ui/")) {
        assert_eq!(kit.get(file).await.status, StatusCode::OK, "{file}");
    }
    for path in ["/api/tags", "/api/hypura/status", "/api/hypura/plan?model=m", "/uix"] {
        assert_eq!(kit.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn page_of_another_site_may_not_ask() {
    let kit = Kit::new();
    let foreign = get(&kit, "/api/hypura/status", &[(header::ORIGIN, "https://evil.example")]).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
}
