//! Sessions, and requests that are not what they should be.

use fanfare_tests::TestServer;
use reqwest::{
    Client, Method,
    header::{CONTENT_TYPE, HOST, LOCATION, ORIGIN},
    redirect::Policy,
};
use serde_json::json;

use crate::shop::Shop;

#[tokio::test]
async fn a_session_begins_with_the_right_password_and_ends_with_signing_out() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let stranger = shop.stranger();
    for (username, password) in [("cashier", "guess"), ("nobody", "cashier-demo"), ("", "")] {
        let answer = stranger.post("/api/session", &json!({"username": username, "password": password})).await;
        assert_eq!(answer, (401, json!({"error": "this name and password do not belong together"})));
    }
    assert_eq!(stranger.get("/api/session").await.0, 401);

    let cashier = shop.person("cashier").await;
    let (_, session) = cashier.get("/api/session").await;
    assert_eq!(session["user"], json!({"id": 1, "name": "Carla", "role": "cashier"}));
    assert_eq!(session["realtime"]["wsPort"], server.address().port());
    assert!(!session.to_string().contains("app-secret"));
    cashier.request(Method::DELETE, "/api/session").send().await.unwrap();
    assert_eq!(cashier.get("/api/session").await.0, 401);
}

#[tokio::test]
async fn another_site_cannot_act_for_who_is_signed_in() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let cashier = shop.person("cashier").await;
    let url = cashier.request(Method::GET, "").build().unwrap().url().clone();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let foreign = [
        ("sec-fetch-site", "cross-site".to_owned()),
        ("sec-fetch-site", "same-site".to_owned()),
        (ORIGIN.as_str(), "https://evil.test".to_owned()),
        (ORIGIN.as_str(), "null".to_owned()),
    ];
    let send = async |name: &str, value: &str| {
        let request = cashier.request(Method::POST, "/api/registrations").header(CONTENT_TYPE, "application/json");
        request.header(name, value).body(r#"{"name":"Ada"}"#).send().await.unwrap().status().as_u16()
    };
    for (name, value) in foreign {
        assert_eq!(send(name, &value).await, 403, "{name}: {value}");
    }
    assert_eq!(send("sec-fetch-site", "same-origin").await, 201);
    assert_eq!(send(ORIGIN.as_str(), &format!("http://{host}")).await, 201);
    assert_eq!(send(HOST.as_str(), "behind-a-proxy.test").await, 201);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let cashier = shop.person("cashier").await;
    let item = json!({"product_id": 1, "quantity": 1});
    let orders = [
        (json!({"customer": "", "items": [item]}), "customer is empty"),
        (json!({"customer": "x".repeat(81), "items": [item]}), "customer has 81 characters, the limit is 80"),
        (json!({"customer": "Ada", "items": []}), "an order has 1 to 50 items, this one has 0"),
        (
            json!({"customer": "Ada", "items": [{"product_id": 1, "quantity": 0}]}),
            "the quantity of an item is 1 to 999",
        ),
        (
            json!({"customer": "Ada", "items": [{"product_id": 1, "quantity": i64::MAX}, item]}),
            "the quantity of an item",
        ),
        (json!({"customer": "Ada", "items": [{"product_id": 77, "quantity": 1}]}), "there is no product 77"),
        (json!({"customer": "Ada"}), "missing field `items`"),
        (json!("x".repeat(40_000)), "limit"),
    ];
    for (order, text) in orders {
        let (code, answer) = cashier.post("/api/orders", &order).await;
        assert_eq!(code, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(text), "{answer}");
    }
    for path in ["/api/orders/x", "/api/orders?after=x", "/api/orders?status=x", "/api/registrations?status=paid"] {
        let (code, answer) = cashier.get(path).await;
        assert!(code == 400 && answer["error"].is_string(), "{path}: {code} {answer}");
    }
    assert_eq!(cashier.get("/api/nothing").await, (404, json!({"error": "there is nothing at /api/nothing"})));
}

#[tokio::test]
async fn pages_lead_to_where_one_belongs() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let people = [
        (shop.stranger(), "/login"),
        (shop.person("cashier2").await, "/cashier/pos"),
        (shop.person("releasing").await, "/releasing/orders"),
        (shop.person("manager").await, "/dashboard"),
    ];
    let http = Client::builder().redirect(Policy::none()).build().unwrap();
    for (person, home) in people {
        let leads_to = async |path: &str| {
            let answer = http.execute(person.request(Method::GET, path).build().unwrap()).await.unwrap();
            answer.headers().get(LOCATION).map(|location| location.to_str().unwrap().to_owned())
        };
        assert_eq!(leads_to("/").await.as_deref(), Some(home));
        assert_eq!(leads_to(home).await, None);
        if home != "/dashboard" {
            assert_eq!(leads_to("/dashboard").await.as_deref(), Some(home));
        }
    }
}
