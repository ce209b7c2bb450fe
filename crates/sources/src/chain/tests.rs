use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// What came of a chain: the data at its end or the hook that failed, what ran, and the seconds waited.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    end: Result<String, (usize, Why)>,
    ran: Vec<usize>,
    waited: Vec<u64>,
}

/// Drives the state machine with data: hook `n` appends its number. Outcomes come from one tape.
fn drive(policies: &[RetryPolicy], max_retries: u32, tape: &[Outcome]) -> Story {
    let (mut chain, mut next) = Chain::start(policies.to_vec(), max_retries);
    let (mut input, mut output) = ("in".to_owned(), String::new());
    let (mut ran, mut waited) = (Vec::new(), Vec::new());
    let mut tape = tape.iter().copied();
    let end = loop {
        match next {
            Next::Run {
                hook,
                input: from,
                after,
            } => {
                if from == Input::Previous {
                    input = std::mem::take(&mut output);
                }
                if !after.is_zero() {
                    waited.push(after.as_secs());
                }
                ran.push(hook);
                output = format!("{input}{hook}");
                next = chain.next(tape.next().unwrap_or(Outcome::Succeeded));
            }
            Next::Done { output: from } => break Ok(if from == Input::Previous { output } else { input }),
            Next::Failed { hook, why } => break Err((hook, why)),
        }
    };
    Story { end, ran, waited }
}

/// The same as nested loops over the requirement's words, without a state machine.
fn model(policies: &[RetryPolicy], max_retries: u32, tape: &[Outcome]) -> Story {
    let mut story = Story {
        end: Ok("in".to_owned()),
        ran: Vec::new(),
        waited: Vec::new(),
    };
    let mut data = "in".to_owned();
    let mut outcomes = tape.to_vec();
    let mut left = max_retries;
    'hooks: for (hook, policy) in policies.iter().enumerate() {
        for again in 1_u64.. {
            story.ran.push(hook);
            let outcome = if outcomes.is_empty() {
                Outcome::Succeeded
            } else {
                outcomes.remove(0)
            };
            if outcome == Outcome::Succeeded {
                data.push_str(&hook.to_string());
                continue 'hooks;
            }
            let why = if outcome == Outcome::NotAllowed {
                Why::NotAllowed
            } else if *policy == RetryPolicy::Ignore {
                continue 'hooks;
            } else if *policy == RetryPolicy::Fail {
                Why::Policy
            } else if left == 0 {
                Why::RetriesUsed(max_retries)
            } else {
                left -= 1;
                story.waited.push(again.min(30));
                continue;
            };
            story.end = Err((hook, why));
            return story;
        }
    }
    story.end = Ok(data);
    story
}

use Outcome::{Failed, NotAllowed, Succeeded};
use RetryPolicy::{Fail, Ignore, Retry};

#[rstest]
#[case::no_hooks(&[], 3, &[], Ok("in"), &[])]
#[case::all_well(&[Fail, Fail], 3, &[], Ok("in01"), &[])]
#[case::fail_at_once(&[Fail, Fail], 3, &[Failed], Err((0, Why::Policy)), &[])]
#[case::ignored_in_the_middle(&[Fail, Ignore, Fail], 0, &[Succeeded, Failed], Ok("in02"), &[])]
#[case::ignored_at_the_end(&[Fail, Ignore], 0, &[Succeeded, Failed], Ok("in0"), &[])]
#[case::all_ignored(&[Ignore, Ignore], 0, &[Failed, Failed], Ok("in"), &[])]
#[case::retried(&[Retry], 3, &[Failed, Failed], Ok("in0"), &[1, 2])]
#[case::zero_means_none(&[Retry], 0, &[Failed], Err((0, Why::RetriesUsed(0))), &[])]
#[case::used_up_over_the_chain(&[Retry, Retry], 2, &[Failed, Succeeded, Failed, Failed], Err((1, Why::RetriesUsed(2))), &[1, 1])]
#[case::ignoring_uses_none(&[Ignore, Retry], 1, &[Failed, Failed], Ok("in1"), &[1])]
#[case::not_allowed_is_not_retried(&[Retry], 9, &[NotAllowed], Err((0, Why::NotAllowed)), &[])]
#[case::not_allowed_is_not_ignored(&[Ignore], 9, &[NotAllowed], Err((0, Why::NotAllowed)), &[])]
fn chains_by_example(
    #[case] policies: &[RetryPolicy],
    #[case] max_retries: u32,
    #[case] tape: &[Outcome],
    #[case] end: Result<&str, (usize, Why)>,
    #[case] waited: &[u64],
) {
    let story = drive(policies, max_retries, tape);
    assert_eq!(story.end, end.map(str::to_owned));
    assert_eq!(story.waited, waited);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn the_machine_does_what_the_words_say(
        policies in proptest::collection::vec(prop_oneof![Just(Ignore), Just(Retry), Just(Fail)], 0..6),
        max_retries in 0_u32..40,
        tape in proptest::collection::vec(
            prop_oneof![4 => Just(Failed), 3 => Just(Succeeded), 1 => Just(NotAllowed)], 0..48),
    ) {
        let story = drive(&policies, max_retries, &tape);
        prop_assert!(story.waited.len() <= max_retries as usize);
        prop_assert_eq!(story, model(&policies, max_retries, &tape));
    }
}
