//! What may become of an order, and by whose hands.

use fanfare_tests::TestServer;
use serde_json::json;

use crate::shop::Shop;

#[tokio::test]
async fn an_order_goes_from_the_cashier_to_the_customer() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let (cashier, releasing) = (shop.person("cashier").await, shop.person("releasing").await);
    let new =
        json!({"customer": " Ada ", "items": [{"product_id": 2, "quantity": 2}, {"product_id": 1, "quantity": 1}]});
    let (status, answer) = cashier.post("/api/orders", &new).await;
    assert_eq!((status, &answer["live"]), (201, &json!(true)));
    let order = &answer["order"];
    assert_eq!(
        (&order["customer"], &order["status"], &order["created_by"]),
        (&json!("Ada"), &json!("created"), &json!("Carla"))
    );
    let items = json!([
        {"product_id": 1, "name": "Espresso", "quantity": 1, "price_cents": 250},
        {"product_id": 2, "name": "Cappuccino", "quantity": 2, "price_cents": 380},
    ]);
    assert_eq!((&order["items"], &order["total_cents"]), (&items, &json!(1010)));

    let id = order["id"].as_i64().unwrap();
    cashier.set_all(id, &["payment", "paid"]).await;
    releasing.set_all(id, &["released"]).await;
    let (_, open) = releasing.get("/api/orders").await;
    assert_eq!(open["orders"], json!([]));
    let (_, released) = releasing.get("/api/orders?status=released,cancelled").await;
    assert_eq!(released["orders"][0]["id"], id);
}

#[tokio::test]
async fn a_step_that_does_not_follow_is_refused_with_the_real_status() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let manager = shop.person("manager").await;
    let id = manager.order().await;
    for (status, real) in [("paid", "created"), ("released", "created"), ("created", "created")] {
        let (code, answer) = manager.set(id, status).await;
        assert_eq!(code, 409, "{status}");
        assert!(answer["error"].as_str().unwrap().contains(&format!("is {real}")), "{answer}");
    }
    manager.set_all(id, &["payment", "cancelled"]).await;
    let (code, answer) = manager.set(id, "paid").await;
    assert_eq!((code, answer["error"].as_str().unwrap()), (409, "order 1001 is cancelled and cannot become paid"));
    assert_eq!(manager.set(id, "gone").await.0, 400);
    assert_eq!(manager.set(99, "paid").await.0, 404);
}

#[tokio::test]
async fn each_role_does_only_what_is_its_own() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let cashier = shop.person("cashier").await;
    let releasing = shop.person("releasing").await;
    let manager = shop.person("manager").await;

    let new = json!({"customer": "Ada", "items": [{"product_id": 1, "quantity": 1}]});
    assert_eq!(releasing.post("/api/orders", &new).await.0, 403);
    assert_eq!(shop.stranger().post("/api/orders", &new).await.0, 401);
    let id = cashier.order().await;
    assert_eq!(releasing.set(id, "payment").await.0, 403);
    assert_eq!(releasing.set(id, "cancelled").await.0, 403);
    cashier.set_all(id, &["payment", "paid"]).await;
    assert_eq!(cashier.set(id, "released").await.0, 403);
    let (code, answer) = cashier.set(id, "cancelled").await;
    assert_eq!((code, &answer["error"]), (403, &json!("only the manager cancels an order that was paid")));
    manager.set_all(id, &["cancelled"]).await;

    for (person, expected) in [(&cashier, 403), (&releasing, 403), (&manager, 200), (&shop.stranger(), 401)] {
        assert_eq!(person.get("/api/dashboard").await.0, expected);
    }
}

#[tokio::test]
async fn stock_is_taken_by_an_order_and_given_back_when_it_is_cancelled() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let cashier = shop.person("cashier").await;
    let mug = async || {
        let (_, products) = cashier.get("/api/products").await;
        let products = products["products"].as_array().unwrap().clone();
        products.into_iter().find(|product| product["name"] == "Enamel Mug").unwrap()
    };
    let (product_id, stock) = (mug().await["id"].as_i64().unwrap(), mug().await["stock"].as_i64().unwrap());
    let order = |quantity: i64| json!({"customer": "Ada", "items": [{"product_id": product_id, "quantity": quantity}]});

    let (_, answer) = cashier.post("/api/orders", &order(stock - 2)).await;
    assert_eq!(mug().await["stock"], 2);
    let (code, refusal) = cashier.post("/api/orders", &order(3)).await;
    assert_eq!((code, &refusal["error"]), (409, &json!("Enamel Mug has only 2 left")));
    assert_eq!(mug().await["stock"], 2, "a refused order takes nothing");
    cashier.set_all(answer["order"]["id"].as_i64().unwrap(), &["cancelled"]).await;
    assert_eq!(mug().await["stock"], stock);
}

#[tokio::test]
async fn a_page_that_was_away_asks_for_what_changed_since() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let manager = shop.person("manager").await;
    let (first, second, third) = (manager.order().await, manager.order().await, manager.order().await);
    let (_, list) = manager.get("/api/orders?status=created").await;
    assert_eq!(list["orders"].as_array().unwrap().len(), 3);
    let since = list["revision"].as_i64().unwrap();

    manager.set_all(second, &["payment", "paid", "released"]).await;
    manager.set_all(first, &["cancelled"]).await;
    let (_, changed) = manager.get(&format!("/api/orders?after={since}")).await;
    let changed_orders: Vec<_> =
        changed["orders"].as_array().unwrap().iter().map(|o| (&o["id"], &o["status"])).collect();
    let expected = [(&json!(second), &json!("released")), (&json!(first), &json!("cancelled"))];
    assert_eq!(changed_orders, expected);
    assert_eq!(changed["more"], false);
    let (_, nothing) = manager.get(&format!("/api/orders?after={}", changed["revision"])).await;
    assert_eq!((&nothing["orders"], &nothing["revision"]), (&json!([]), &changed["revision"]));
    let (_, shown) = manager.get(&format!("/api/orders/{third}")).await;
    assert_eq!(shown["order"]["status"], "created");
}

#[tokio::test]
async fn the_dashboard_counts_what_was_paid_and_not_cancelled() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let manager = shop.person("manager").await;
    let (sold, returned, _open) = (manager.order().await, manager.order().await, manager.order().await);
    manager.set_all(sold, &["payment", "paid"]).await;
    manager.set_all(returned, &["payment", "paid", "cancelled"]).await;
    let (_, figures) = manager.get("/api/dashboard").await;
    assert_eq!((&figures["sales_count"], &figures["revenue_cents"]), (&json!(1), &json!(250)));
    let by_status = json!({"created": 1, "payment": 0, "paid": 1, "released": 0, "cancelled": 1});
    assert_eq!((&figures["orders_by_status"], &figures["not_live"]), (&by_status, &json!(0)));
    let hours = figures["revenue_by_hour"].as_array().unwrap();
    let total: i64 = hours.iter().map(|hour| hour["cents"].as_i64().unwrap()).sum();
    assert_eq!((hours.len(), total), (24, 250));
    // All hours of it lie before 2200, so nothing was sold since.
    let (_, none) = manager.get("/api/dashboard?since=2200-01-01T00:00:00Z").await;
    assert_eq!((&none["sales_count"], &none["revenue_by_hour"]), (&json!(0), &json!([])));
    assert_eq!(manager.get("/api/dashboard?since=today").await.0, 400);
}

#[tokio::test]
async fn staff_comment_on_orders() {
    let server = TestServer::start();
    let shop = Shop::start(&server);
    let (cashier, releasing) = (shop.person("cashier").await, shop.person("releasing").await);
    let path = format!("/api/orders/{}/comments", cashier.order().await);
    let (code, answer) = cashier.post(&path, &json!({"body": "  oat milk, please\n"})).await;
    assert_eq!((code, &answer["comment"]["body"]), (201, &json!("oat milk, please")));
    releasing.post(&path, &json!({"body": "done"})).await;
    let (_, list) = releasing.get(&path).await;
    let comments: Vec<_> = list["comments"].as_array().unwrap().iter().map(|c| (&c["author"], &c["body"])).collect();
    let expected = [(&json!("Carla"), &json!("oat milk, please")), (&json!("Rosa"), &json!("done"))];
    assert_eq!(comments, expected);
    assert_eq!(cashier.post(&path, &json!({"body": " "})).await.0, 400);
    assert_eq!(cashier.post(&path, &json!({"body": "x".repeat(1001)})).await.0, 400);
    assert_eq!(cashier.post("/api/orders/99/comments", &json!({"body": "x"})).await.0, 404);
}
