//! Pages, scripts and the JSON they read.

mod http_support;

use http_support::*;

#[tokio::test]
async fn every_page_is_served_with_its_type_and_policy() {
    let server = Server::public().await;
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/play/roulette", "text/html; charset=utf-8"),
        ("/publish/anything-that-could-be-a-table", "text/html; charset=utf-8"),
        ("/dashboard", "text/html; charset=utf-8"),
        ("/sdk/player.js", "text/javascript; charset=utf-8"),
        ("/sdk/player.d.ts", "text/plain; charset=utf-8"),
        ("/assets/index.js", "text/javascript; charset=utf-8"),
        ("/assets/bets.js", "text/javascript; charset=utf-8"),
        ("/assets/shared.js", "text/javascript; charset=utf-8"),
        ("/assets/favicon.svg", "image/svg+xml"),
        ("/assets/play.js", "text/javascript; charset=utf-8"),
        ("/assets/publish.js", "text/javascript; charset=utf-8"),
        ("/assets/dashboard.js", "text/javascript; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
    ] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(header(&response, "content-type"), content_type, "{path}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "cache-control"), "no-cache");
        let policy = header(&response, "content-security-policy");
        assert!(policy.starts_with("default-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains("data:"), "{policy}");
        assert_cors(response.headers());
        assert!(!response.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    let server = Server::public().await;
    let first = server.get("/sdk/player.js").await;
    let etag = header(&first, "etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 34, "{etag}");

    let again = |tags: String| server.request("GET", "/sdk/player.js").header("if-none-match", tags).send();
    for tags in [etag.clone(), format!("\"other\", {etag}"), format!("W/{etag}"), "*".to_owned()] {
        let response = again(tags.clone()).await.unwrap();
        assert_eq!(response.status(), 304, "{tags}");
        assert_eq!(header(&response, "etag"), etag);
        assert_cors(response.headers());
        assert!(response.bytes().await.unwrap().is_empty());
    }
    assert_eq!(again("\"other\"".to_owned()).await.unwrap().status(), 200);
    assert_ne!(header(&server.get("/").await, "etag"), etag);
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let server = Server::public().await;
    for path in [
        "/metrics",
        "/healthz",
        "/status",
        "/assets/none.js",
        "/assets/play.html",
        "/sdk/",
        "/hls/roulette",
        "/play/%ff",
    ] {
        let problem = assert_problem(server.get(path).await, 404, "not-found").await;
        assert!(problem["detail"].as_str().unwrap().contains(path), "{problem}");
    }
    for path in ["/play/a%20b", "/publish/a.b"] {
        assert_problem(server.get(path).await, 404, "unknown-table").await;
    }
}

#[tokio::test]
async fn tables_are_listed_as_json() {
    let server = Server::public().await;
    let response = server.get("/api/tables").await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_cors(response.headers());
    let listed = json(response).await;
    assert_eq!(listed["tables"].as_array().unwrap().len(), 2);
    assert_eq!(listed["tables"][1]["name"], "roulette");
    assert_eq!(listed["tables"][1]["live"], true);
    assert_eq!(listed["tables"][1]["videoCodec"], "H264");
}

#[tokio::test]
async fn one_table_is_shown_as_json() {
    let server = Server::public().await;
    let table = json(server.get("/api/tables/roulette").await).await;
    assert_eq!((&table["name"], &table["players"]), (&"roulette".into(), &2.into()));
    assert_eq!(table["bitsPerSecond"], 2.5e6);
    let idle = json(server.get("/api/tables/idle").await).await;
    assert_eq!((&idle["name"], &idle["live"]), (&"idle".into(), &false.into()));
    assert_problem(server.get("/api/tables/baccarat").await, 404, "unknown-table").await;
    let preflight = server.send("OPTIONS", "/api/tables").await;
    assert_eq!(preflight.status(), 200);
    assert_cors(preflight.headers());
}
