use super::*;

struct Running {
    settings: HttpSettings,
    health: Health,
    end: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Running {
    async fn start() -> Self {
        let health = Health::new(&["consumer", "database"]);
        let registry = Registry::new();
        let gauge = prometheus::IntGauge::new("outbox_backlog_events", "Events waiting.").expect("a legal name");
        registry.register(Box::new(gauge)).expect("the first of its name");
        let file = std::env::temp_dir().join(format!("address-{}", uuid::Uuid::new_v4()));
        let settings = HttpSettings {
            listen: "127.0.0.1:0".to_owned(),
            address_file: Some(file),
        };
        let server = serve(&settings, health.clone(), registry)
            .await
            .expect("port 0 is free");
        let end = CancellationToken::new();
        let task = tokio::spawn(server.run(end.clone()));
        Self {
            settings,
            health,
            end,
            task,
        }
    }

    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(own_address(&self.settings).await.expect("written"))
            .await
            .expect("listens");
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .expect("open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }

    async fn stop(self) {
        self.end.cancel();
        self.task.await.expect("no panic").expect("no trouble");
        std::fs::remove_file(self.settings.address_file.expect("set above")).expect("written above");
    }
}

#[tokio::test]
async fn readiness_tells_which_part_is_not_ready_and_why() {
    let running = Running::start().await;
    running.health.ready("consumer");
    running.health.not_ready("database", "connection refused");

    let readiness = probe(&running.settings).await.expect("answers");
    let body: serde_json::Value = serde_json::from_str(&readiness.body).expect("JSON");
    assert!(!readiness.is_ready);
    assert_eq!(body["ready"], false);
    assert_eq!(body["parts"]["consumer"]["ready"], true);
    assert_eq!(body["parts"]["database"]["reason"], "connection refused");
    assert!(body["parts"]["database"]["since"].is_string());

    running.health.ready("database");
    assert!(probe(&running.settings).await.expect("answers").is_ready);
    running.stop().await;
}

#[tokio::test]
async fn life_and_metrics_are_answered() {
    let running = Running::start().await;
    assert!(running.get("/livez").await.starts_with("HTTP/1.0 200"));
    let metrics = running.get("/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("outbox_backlog_events 0"), "{metrics}");
    assert!(running.get("/nothing").await.contains(" 404 "));
    running.stop().await;
}

#[test]
fn a_service_is_not_ready_before_its_parts_say_so() {
    assert!(!Health::new(&[]).is_ready());
    let health = Health::new(&["consumer"]);
    assert!(!health.is_ready());
    health.ready("consumer");
    assert!(health.is_ready());
}

#[test]
fn a_changed_reason_does_not_restart_the_time() {
    let health = Health::new(&["database"]);
    let since = |health: &Health| health.parts.lock().expect("no panic")["database"].since;
    health
        .parts
        .lock()
        .expect("no panic")
        .get_mut("database")
        .expect("named above")
        .since = 1;
    health.not_ready("database", "another reason");
    assert_eq!(since(&health), 1);
    health.ready("database");
    assert!(since(&health) > 1);
}

#[test]
fn a_reason_that_keeps_changing_is_told_now_and_then() {
    let away = |reason: &str| State::NotReady {
        reason: reason.to_owned(),
    };
    let part = |state| Part {
        state,
        since: 0,
        told: 50_000,
    };
    assert!(!part(away("1/2 brokers are down")).is_news(&away("2/2 brokers are down"), 59_999));
    assert!(part(away("1/2 brokers are down")).is_news(&away("2/2 brokers are down"), 60_000));
    assert!(part(away("2/2 brokers are down")).is_news(&State::Ready, 50_001));
    assert!(part(State::Ready).is_news(&away("2/2 brokers are down"), 50_001));
}
