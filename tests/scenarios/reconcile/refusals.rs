//! What cannot be found out is no verdict: exit code 2, and what to do about it.

use harness::ports;
use harness::stack::Database;

use super::tool;
use crate::triage::scene::Scene;

#[tokio::test]
async fn trouble_is_told_with_its_setting_and_is_no_verdict() -> anyhow::Result<()> {
    // given
    let scene = Scene::new("recon-refusals", 1).await?;
    let empty = scene.stack.empty_database("recon-empty").await?;
    let Database { url: no_schema, .. } = &empty;
    let nobody = format!("127.0.0.1:{}", ports::free()?);
    scene
        .run("insert into consumers (name) values ('somebody-else')")
        .await?;

    let usual = || tool(&scene);
    for (asked, arguments, told) in [
        (usual().set("KAFKA__BROKERS", &nobody), vec![], "kafka.brokers"),
        (
            usual().set("DATABASE__URL", format!("postgres://me:secret@{nobody}/db")),
            vec![],
            "database.url",
        ),
        (usual().set("DATABASE__URL", no_schema), vec![], "--migrate"),
        (usual(), vec![], "kafka.group"),
        (
            usual()
                .set("INTAKE__CONSUMER", "somebody-else")
                .set("TOPICS__INPUT", "no-such"),
            vec![],
            "topics.input",
        ),
        (usual().set("TOPICS__NO_SUCH", "x"), vec![], "TOPICS__NO_SUCH"),
        (usual(), vec!["--partition", "0"], "--topic"),
        (usual(), vec!["--topic", "no-such"], "no-such"),
        (usual(), vec!["--since", "yesterday"], "--since"),
        (
            usual().set("INTAKE__CONSUMER", "somebody-else"),
            vec!["--report", "/proc/no/report.json"],
            "--report",
        ),
    ] {
        // when
        let arguments = [vec!["reconcile"], arguments].concat();
        let (code, _, complained) = asked
            .set("KAFKA__REQUEST_TIMEOUT_MS", 3_000)
            .run_with(&arguments)
            .await?;

        // then
        assert_eq!(code, Some(2), "{arguments:?}: {complained}");
        assert!(complained.contains(told), "{told} is not told: {complained}");
        assert!(
            !complained.contains("secret") && !complained.contains("panicked"),
            "{complained}"
        );
    }
    scene.stack.drop_database(&empty).await?;
    scene.stack.drop_database(&scene.database).await
}
