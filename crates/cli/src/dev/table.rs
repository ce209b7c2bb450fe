//! Tables on stdout: plain columns, readable in a log too.

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use super::{line::Line, record::Record};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// What `dev status` shows.
pub(crate) fn records(records: &[Record]) -> String {
    let mut table = table(&["PID", "KUBERNETES", "READY", "SERVER", "KUBECONFIG"]);
    for record in records {
        table.add_row([
            record.pid.to_string(),
            record.kubernetes.clone(),
            record.ready.to_string(),
            record.server.clone(),
            record.kubeconfig.display().to_string(),
        ]);
    }
    trimmed(&table)
}

/// What became of the examples.
pub(crate) fn lines(lines: &[Line]) -> String {
    let mut table = table(&["EXAMPLE", "OBJECT", "READY", "REASON", "MESSAGE"]);
    for line in lines {
        table.add_row([&line.example, &line.object, &line.ready, &line.reason, &line.message]);
    }
    trimmed(&table)
}

fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}
