//! `trellis diff`: what manifests of policies would change, in objects and in what calls get.

use std::{collections::BTreeSet, fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use kube::ResourceExt as _;
use serde::Serialize;
use trellis_api::ResiliencePolicy;
use trellis_resilience::{
    PolicyName,
    diff::{Change, Changes, Diff, diff},
    project::{Conflict, project},
    shown::{FIELD, VALUE, cut},
};

use crate::{live, out};

/// A file of manifests is written by people: more than this is a mistake.
const FILE_LIMIT: u64 = 4 << 20;

/// Arguments of `trellis diff`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File with policies
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,
    /// Namespace of policies that name none
    #[arg(long, short, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: live::From,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let policies = read(args)?;
    let mut namespaces = BTreeSet::new();
    for policy in &policies {
        namespaces.extend(policy.namespace());
        namespaces.extend(
            policy
                .spec
                .target_ref
                .iter()
                .filter_map(|target| target.namespace.clone()),
        );
    }
    let read = crate::wait_for(args.cluster.cluster(live::Scope::Whole(namespaces)))?;
    let (mut cluster, mut notes) = (read.cluster, read.notes);
    let (before, _) = project(&cluster);
    for mut policy in policies {
        let name = |policy: &ResiliencePolicy| (policy.namespace(), policy.name_any());
        policy.metadata.deletion_timestamp = None;
        let at = cluster.policies.iter().position(|known| name(known) == name(&policy));
        if let Some(living) = at.map(|at| cluster.policies.swap_remove(at)) {
            // An edit changes neither its age, by which policies win, nor what it is known to have written.
            policy.metadata.uid = living.metadata.uid;
            policy.metadata.creation_timestamp = living.metadata.creation_timestamp;
            policy.status = living.status;
            // Nor does it bring back one that goes.
            policy.metadata.deletion_timestamp = living.metadata.deletion_timestamp;
            if policy.metadata.deletion_timestamp.is_some() {
                notes.push(format!(
                    "policy {} is being deleted: apply it again once it is gone",
                    PolicyName::of(&policy)
                ));
            }
        }
        cluster.policies.push(policy);
    }
    let (after, mut conflicts) = project(&cluster);
    for conflict in &mut conflicts {
        conflict.value = cut(&conflict.value, FIELD);
    }
    let diff = diff(&before, &after);
    if args.json {
        let told = Told {
            diff: &diff,
            conflicts: &conflicts,
            notes: &notes,
        };
        out::data(serde_json::to_string_pretty(&told)?);
    } else {
        print(&diff);
    }
    for conflict in &conflicts {
        out::note(format_args!(
            "policy {} would not get {} of {}: somebody else says {}",
            conflict.policy,
            conflict.key,
            conflict.object,
            cut(&conflict.value, VALUE)
        ));
    }
    notes.iter().for_each(out::note);
    Ok(ExitCode::SUCCESS)
}

/// The JSON form.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    diff: &'a Diff,
    conflicts: &'a [Conflict],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [String],
}

fn print(diff: &Diff) {
    for change in &diff.objects {
        let how = match change.change {
            Change::Added => " (new)",
            Change::Removed => " (goes)",
            Change::Changed => "",
        };
        out::data(format_args!("{}{how}", change.object));
        lines(&change.annotations);
        lines(&change.fields);
    }
    for change in &diff.calls {
        let Some(told) = change.after.as_deref().or(change.before.as_deref()) else {
            continue;
        };
        out::data(format_args!(
            "calls from {} to {}, port {}",
            told.from, told.service, told.port
        ));
        lines(&change.fields());
    }
    out::say(format_args!(
        "{} objects and {} kinds of calls change",
        diff.objects.len(),
        diff.calls.len()
    ));
}

fn lines(changes: &Changes) {
    for (name, (was, is)) in changes {
        let value = |value: &Option<String>| value.as_ref().map_or_else(|| "(none)".to_owned(), |it| cut(it, VALUE));
        out::line(format_args!("  {name}: {} -> {}", value(was), value(is)));
    }
}

fn read(args: &Args) -> anyhow::Result<Vec<ResiliencePolicy>> {
    let path = args.file.display();
    let size = fs::metadata(&args.file).with_context(|| path.to_string())?.len();
    anyhow::ensure!(
        size <= FILE_LIMIT,
        "{path} has {size} bytes; at most {FILE_LIMIT} are read"
    );
    let text = fs::read_to_string(&args.file).with_context(|| path.to_string())?;
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).with_context(|| path.to_string())?;
    let ours = documents
        .into_iter()
        .filter(|document| document["kind"] == "ResiliencePolicy");
    ours.map(|document| {
        let mut policy: ResiliencePolicy = serde_json::from_value(document).with_context(|| path.to_string())?;
        policy.metadata.namespace.get_or_insert_with(|| args.namespace.clone());
        Ok(policy)
    })
    .collect()
}
