//! Registrations, from the cashier to the desk.

use fanfare_tests::TestServer;
use serde_json::json;

use crate::shop::Shop;

#[tokio::test]
async fn a_registration_is_taken_by_a_cashier_and_released_at_the_desk() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let (cashier, releasing) = (shop.person("cashier").await, shop.person("releasing").await);
    let new = json!({"name": "Ada", "email": "ada@example.test"});
    assert_eq!(releasing.post("/api/registrations", &new).await.0, 403);
    let (code, answer) = cashier.post("/api/registrations", &new).await;
    assert_eq!((code, &answer["registration"]["status"]), (201, &json!("created")));
    let (_, list) = releasing.get("/api/registrations").await;
    assert_eq!(list["registrations"], json!([answer["registration"]]));

    let release = format!("/api/registrations/{}/release", answer["registration"]["id"]);
    assert_eq!(cashier.post(&release, &json!({})).await.0, 403);
    let (code, released) = releasing.post(&release, &json!({})).await;
    assert_eq!((code, &released["registration"]["status"]), (200, &json!("released")));
    let (code, again) = releasing.post(&release, &json!({})).await;
    assert_eq!((code, &again["error"]), (409, &json!("the registration of Ada is released already")));
    let (_, changed) = releasing.get(&format!("/api/registrations?after={}", list["revision"])).await;
    assert_eq!(changed["registrations"], json!([released["registration"]]));
}

#[tokio::test]
async fn a_registration_needs_a_name_and_if_any_an_email() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let cashier = shop.person("cashier").await;
    for new in [json!({"name": ""}), json!({"email": "a@b"}), json!({"name": "Ada", "email": "nowhere"}), json!(7)] {
        assert_eq!(cashier.post("/api/registrations", &new).await.0, 400, "{new}");
    }
    let (code, answer) = cashier.post("/api/registrations", &json!({"name": "Ada", "email": ""})).await;
    assert_eq!((code, &answer["registration"]["email"]), (201, &json!(null)));
}
