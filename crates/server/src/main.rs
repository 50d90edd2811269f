//! stub
fn main() {
    let mut c = fanfare_server::config::Config::default();
    c.apps.push(fanfare_server::config::AppConfig {
        id: fanfare_protocol::AppId::new("app-id"),
        key: fanfare_protocol::AppKey::new("app-key"),
        secret: fanfare_protocol::AppSecret::new("app-secret"),
        ..Default::default()
    });
    tracing_subscriber::fmt().init();
    if let Some(p) = std::env::args().nth(1) {
        c.server.port = p.parse().unwrap();
    }
    fanfare_server::serve(c).unwrap();
}
