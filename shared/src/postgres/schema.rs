//! The schema that this binary carries, and the one that it finds.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::{Session, connect, options};
use crate::config::DatabaseSettings;

static MIGRATOR: Migrator = {
    let mut migrator = sqlx::migrate!("../migrations");
    // During a rollout the older binary meets the newer schema; migrations only expand while it may run.
    migrator.ignore_missing = true;
    migrator
};

/// Why a service cannot work with the schema it found.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Migrations are missing.
    #[error(
        "the schema is at version {have}, this binary needs {need}: run it once with --migrate \
         (as the schema's owner: DATABASE__MIGRATE_URL), or set DATABASE__MIGRATE to true"
    )]
    Older {
        /// Newest migration found; 0 when there is none.
        have: i64,
        /// Newest migration that this binary carries.
        need: i64,
    },
    /// A migration ran half.
    #[error("migration {version} failed half way: mend the schema by hand, then run --migrate")]
    Unfinished {
        /// Which one.
        version: i64,
    },
    /// A migration could not run.
    #[error("migrate the schema")]
    Migrate(#[source] MigrateError),
    /// The database did not answer.
    #[error("ask the database for its schema")]
    Database(#[source] sqlx::Error),
}

/// Brings the schema up, under a lock of the database: instances that start together do it once.
pub async fn migrate(settings: &DatabaseSettings) -> Result<(), SchemaError> {
    let url = settings.migrate_url.as_ref().unwrap_or(&settings.url);
    let options = options(url.expose(), "claimfirst-migrate").map_err(SchemaError::Database)?;
    let mut connection = connect(&options, &Session::new(settings))
        .await
        .map_err(SchemaError::Database)?;
    // Waiting for the migrations of another instance is what we want here.
    sqlx::query("set lock_timeout = 0")
        .execute(&mut connection)
        .await
        .map_err(SchemaError::Database)?;
    MIGRATOR.run(&mut connection).await.map_err(SchemaError::Migrate)?;
    connection.close().await.map_err(SchemaError::Database)
}

/// Checks that the schema is at least the one that this binary needs. A newer one is fine.
pub async fn check_schema(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let need = MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or_default();
    let rows = sqlx::query("select version, success from _sqlx_migrations order by version")
        .fetch_all(connection)
        .await;
    let rows = match rows {
        Ok(rows) => rows,
        // 42P01: the table of migrations does not exist, so none ever ran.
        Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some("42P01") => Vec::new(),
        Err(error) => return Err(SchemaError::Database(error)),
    };
    let mut have = 0;
    for row in rows {
        let version = row.try_get("version").map_err(SchemaError::Database)?;
        if !row.try_get::<bool, _>("success").map_err(SchemaError::Database)? {
            return Err(SchemaError::Unfinished { version });
        }
        have = version;
    }
    if have < need {
        return Err(SchemaError::Older { have, need });
    }
    if have > need {
        tracing::warn!("the schema is at version {have}, newer than this binary's {need}: finish the rollout");
    }
    Ok(())
}

/// What a service does before it starts: brings the schema up where `migrate` says so, else checks it.
pub async fn prepare_schema(settings: &DatabaseSettings, application_name: &str) -> Result<(), SchemaError> {
    if settings.migrate {
        return migrate(settings).await;
    }
    let options = options(settings.url.expose(), application_name).map_err(SchemaError::Database)?;
    let mut connection = connect(&options, &Session::new(settings))
        .await
        .map_err(SchemaError::Database)?;
    check_schema(&mut connection).await?;
    connection.close().await.map_err(SchemaError::Database)
}
