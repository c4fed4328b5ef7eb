//! Puts a session's settings and database back after a request that asked for its own.

use super::exception::Exception;
use super::execute::command;
use super::library::Connection;
use super::parameters::{RequestParameters, quoted, quoted_identifier};

/// What to run afterwards.
pub struct SettingsScope {
    statements: Vec<String>,
}

impl SettingsScope {
    /// Reads what the request is about to change. `keeps_database`: the statement itself may be a `USE`.
    pub fn capture(
        connection: &mut Connection,
        request: &RequestParameters,
        keeps_database: bool,
    ) -> Result<Self, Exception> {
        let mut statements = Vec::new();
        if !request.settings.is_empty() {
            let names: Vec<String> = request.settings.iter().map(|(name, _)| quoted(name)).collect();
            let sql = format!("SELECT name, value, changed FROM system.settings WHERE name IN ({})", names.join(", "));
            let rows = command(connection, &sql)?;
            for row in lines(rows.as_ref()) {
                let (name, value, changed): (String, String, u8) = serde_json::from_slice(row).map_err(unreadable)?;
                let before = if changed == 0 { "DEFAULT".to_owned() } else { quoted(&value) };
                statements.push(format!("SET {name} = {before}"));
            }
        }
        if request.database.is_some() && !keeps_database {
            let rows = command(connection, "SELECT currentDatabase()")?;
            for row in lines(rows.as_ref()) {
                let (database,): (String,) = serde_json::from_slice(row).map_err(unreadable)?;
                statements.push(format!("USE {}", quoted_identifier(&database)));
            }
        }
        Ok(Self { statements })
    }

    pub fn restore(self, connection: &mut Connection) -> Result<(), Exception> {
        for statement in &self.statements {
            command(connection, statement)?;
        }
        Ok(())
    }
}

fn lines(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn unreadable(error: serde_json::Error) -> Exception {
    Exception::bad_arguments(format!("the session's settings cannot be read: {error}"))
}
