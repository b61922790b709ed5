//! Pipelines as they go on.

use proptest::prelude::*;

use super::*;

fn failed(code: i32) -> Ending {
    Ending::Failed { reason: "script_failure".to_owned(), exit_code: Some(code) }
}

fn task(stage: usize) -> Task {
    Task { stage, ..Task::default() }
}

fn needing(stage: usize, needs: &[usize]) -> Task {
    Task { needs: Some(needs.to_vec()), ..task(stage) }
}

/// All jobs that may start now.
fn starts(schedule: &mut Schedule) -> Vec<usize> {
    std::iter::from_fn(|| schedule.start()).collect()
}

#[test]
fn stages_wait_for_one_another() {
    let mut schedule = Schedule::new(vec![task(1), task(0), task(0), task(2)]);
    assert_eq!(starts(&mut schedule), [1, 2]);
    schedule.end(1, &Ending::Success);
    assert!(starts(&mut schedule).is_empty());
    schedule.end(2, &Ending::Success);
    assert_eq!(starts(&mut schedule), [0]);
    schedule.end(0, &failed(1));
    assert!(starts(&mut schedule).is_empty());
    assert_eq!(schedule.state(3), State::Skipped);
    assert!(schedule.is_over());
    assert_eq!(schedule.status(), PipelineStatus::Failed);
}

#[test]
fn needs_pass_stages_by() {
    let mut schedule =
        Schedule::new(vec![task(0), task(0), needing(1, &[0]), needing(2, &[]), needing(1, &[2])]);
    assert_eq!(starts(&mut schedule), [0, 1, 3]);
    schedule.end(0, &Ending::Success);
    assert_eq!(starts(&mut schedule), [2]);
    schedule.end(2, &Ending::Success);
    assert_eq!(starts(&mut schedule), [4]);
}

#[test]
fn failures_start_what_is_for_them() {
    let on_failure = Task { when: When::OnFailure, ..task(1) };
    let always = Task { when: When::Always, ..task(2) };
    let mut schedule = Schedule::new(vec![task(0), on_failure, task(1), always]);
    starts(&mut schedule);
    schedule.end(0, &failed(1));
    assert_eq!(starts(&mut schedule), [1]);
    schedule.end(1, &Ending::Success);
    assert_eq!(starts(&mut schedule), [3]);
    schedule.end(3, &Ending::Success);
    assert_eq!((schedule.state(2), schedule.status()), (State::Skipped, PipelineStatus::Failed));
}

#[test]
fn allowed_failures_are_warnings() {
    let lenient = Task { allow_failure: AllowFailure::ExitCodes(vec![42]), ..task(0) };
    let mut schedule = Schedule::new(vec![lenient.clone(), task(1)]);
    starts(&mut schedule);
    schedule.end(0, &failed(42));
    assert_eq!((schedule.state(0), starts(&mut schedule)), (State::Warning, vec![1]));
    schedule.end(1, &Ending::Success);
    assert_eq!(schedule.status(), PipelineStatus::Success);
    let mut schedule = Schedule::new(vec![lenient, task(1)]);
    starts(&mut schedule);
    schedule.end(0, &failed(41));
    assert_eq!((schedule.state(0), schedule.state(1)), (State::Failed, State::Skipped));
}

#[test]
fn retries_are_counted_and_have_reasons() {
    let retry = |max, when: &[&str], exit_codes: &[i64]| Task {
        retry: Retry {
            max,
            when: when.iter().map(|when| (*when).to_owned()).collect(),
            exit_codes: exit_codes.to_vec(),
        },
        ..task(0)
    };
    let runs = |task: Task| {
        let mut schedule = Schedule::new(vec![task]);
        let mut runs = 0;
        while let Some(at) = schedule.start() {
            runs += 1;
            schedule.end(at, &failed(7));
        }
        runs
    };
    assert_eq!(runs(retry(0, &[], &[])), 1);
    assert_eq!(runs(retry(2, &[], &[])), 3);
    assert_eq!(runs(retry(2, &["always"], &[])), 3);
    assert_eq!(runs(retry(1, &["script_failure"], &[])), 2);
    assert_eq!(runs(retry(2, &["runner_system_failure"], &[])), 1);
    assert_eq!(runs(retry(2, &[], &[7])), 3);
    assert_eq!(runs(retry(2, &[], &[8])), 1);
    assert_eq!(runs(retry(2, &["runner_system_failure"], &[7])), 3);
}

#[test]
fn manual_jobs_wait_and_may_hold_others_up() {
    let manual = |allow_failure| Task { when: When::Manual, allow_failure, ..task(0) };
    let mut optional = Schedule::new(vec![manual(AllowFailure::Yes), task(0), task(1)]);
    assert_eq!(starts(&mut optional), [1]);
    optional.end(1, &Ending::Success);
    assert_eq!(starts(&mut optional), [2]);
    optional.end(2, &Ending::Success);
    assert_eq!((optional.state(0), optional.status()), (State::Manual, PipelineStatus::Success));

    let mut blocking = Schedule::new(vec![manual(AllowFailure::No), task(0), task(1)]);
    starts(&mut blocking);
    blocking.end(1, &Ending::Success);
    assert!(blocking.is_over());
    assert_eq!((blocking.state(2), blocking.status()), (State::Created, PipelineStatus::Manual));

    let asked = Task { wanted: true, ..manual(AllowFailure::No) };
    let mut asked = Schedule::new(vec![asked, task(1)]);
    assert_eq!(starts(&mut asked), [0]);

    let needed = Schedule::new(vec![manual(AllowFailure::Yes), needing(1, &[0])]);
    assert_eq!(needed.state(1), State::Skipped);
}

#[test]
fn one_job_of_a_resource_group_runs_at_a_time() {
    let grouped = |group: &str| Task { resource_group: Some(group.to_owned()), ..task(0) };
    let mut schedule = Schedule::new(vec![grouped("a"), grouped("a"), grouped("b")]);
    assert_eq!(starts(&mut schedule), [0, 2]);
    schedule.end(0, &failed(1));
    assert_eq!(starts(&mut schedule), [1]);
}

#[test]
fn a_cancelled_pipeline_starts_nothing() {
    let retry = Retry { max: 2, ..Retry::default() };
    let mut schedule = Schedule::new(vec![Task { retry, ..task(0) }, task(0), task(1)]);
    assert_eq!(schedule.start(), Some(0));
    schedule.cancel();
    assert_eq!(schedule.start(), None);
    assert!(!schedule.is_over());
    schedule.end(0, &Ending::Canceled);
    assert!(schedule.is_over());
    assert_eq!(schedule.states(), [State::Canceled; 3]);
    assert_eq!(schedule.status(), PipelineStatus::Canceled);
}

#[test]
fn jobs_that_wait_for_one_another_do_not_hang() {
    let mut schedule = Schedule::new(vec![needing(0, &[1]), needing(0, &[0]), needing(0, &[9])]);
    assert_eq!(starts(&mut schedule), [2], "what is not there is not waited for");
    schedule.end(2, &Ending::Success);
    assert!(schedule.is_over());
}

fn any_task(at: usize) -> impl Strategy<Value = Task> {
    let when = prop_oneof![
        6 => Just(When::OnSuccess),
        1 => Just(When::OnFailure),
        1 => Just(When::Always),
        1 => Just(When::Manual),
        1 => Just(When::Delayed),
        1 => Just(When::Never),
    ];
    let allow = prop_oneof![
        3 => Just(AllowFailure::No),
        1 => Just(AllowFailure::Yes),
        1 => Just(AllowFailure::ExitCodes(vec![3])),
    ];
    // Only earlier jobs, so that there are no circles.
    let needs = proptest::option::of(proptest::collection::vec(0..at.max(1), 0..3))
        .prop_map(move |needs| needs.map(|needs| needs.into_iter().filter(|need| *need < at).collect()));
    let group = proptest::option::weighted(0.3, prop_oneof![Just("a".to_owned()), Just("b".to_owned())]);
    (needs, when, allow, 0..3_u32, group, any::<bool>()).prop_map(
        move |(needs, when, allow_failure, max, resource_group, wanted)| Task {
            stage: at / 3,
            needs,
            when,
            allow_failure,
            retry: Retry { max, ..Retry::default() },
            resource_group,
            wanted,
        },
    )
}

fn any_tasks() -> impl Strategy<Value = Vec<Task>> {
    (1..10_usize).prop_flat_map(|count| (0..count).map(any_task).collect::<Vec<_>>())
}

fn any_ending() -> impl Strategy<Value = Ending> {
    prop_oneof![3 => Just(Ending::Success), 1 => Just(failed(1)), 1 => Just(failed(3)), 1 => Just(Ending::Canceled)]
}

proptest! {
    #[test]
    fn any_pipeline_ends_in_order(
        tasks in any_tasks(),
        endings in proptest::collection::vec((any_ending(), any::<usize>()), 64),
        jobs in 1..4_usize,
    ) {
        let mut schedule = Schedule::new(tasks.clone());
        let mut running: Vec<usize> = Vec::new();
        let mut runs = vec![0_u32; tasks.len()];
        let mut endings = endings.into_iter();
        loop {
            while running.len() < jobs && let Some(at) = schedule.start() {
                let task = &tasks[at];
                // Where something that is needed does not run, GitLab does not wait for what somebody has to ask for.
                let lacks = task.needs.iter().flatten().any(|need| match schedule.state(*need) {
                    State::Skipped => true,
                    State::Manual => tasks[*need].allow_failure == AllowFailure::Yes,
                    _ => false,
                });
                for need in task.needs.iter().flatten() {
                    let state = schedule.state(*need);
                    let settled = state.is_over() || lacks && state == State::Manual;
                    prop_assert!(settled, "{at} started before {need} was over");
                }
                if task.needs.is_none() {
                    for (other, earlier) in tasks.iter().enumerate().filter(|(_, other)| other.stage < task.stage) {
                        let settled = schedule.state(other).is_over()
                            || schedule.state(other) == State::Manual && earlier.allow_failure == AllowFailure::Yes;
                        prop_assert!(settled, "{at} started before {other}");
                    }
                }
                let group = &task.resource_group;
                prop_assert!(group.is_none() || running.iter().all(|other| tasks[*other].resource_group != *group));
                runs[at] += 1;
                running.push(at);
            }
            if running.is_empty() {
                break;
            }
            let (ending, which) = endings.next().unwrap_or((Ending::Success, 0));
            let at = running.swap_remove(which % running.len());
            schedule.end(at, &ending);
        }
        prop_assert!(schedule.is_over());
        for (at, task) in tasks.iter().enumerate() {
            prop_assert!(runs[at] <= task.retry.max + 1);
            prop_assert_eq!(runs[at] > 0, matches!(schedule.state(at), State::Success | State::Failed | State::Warning)
                || runs[at] > 0 && schedule.state(at) == State::Canceled);
        }
        let any = |wanted: State| schedule.states().contains(&wanted);
        match schedule.status() {
            PipelineStatus::Success => prop_assert!(!any(State::Failed) && !any(State::Created)),
            PipelineStatus::Failed => prop_assert!(any(State::Failed)),
            PipelineStatus::Canceled => prop_assert!(any(State::Canceled) && !any(State::Failed)),
            PipelineStatus::Skipped => prop_assert!(any(State::Skipped) || any(State::Manual)),
            PipelineStatus::Manual => prop_assert!(any(State::Manual)),
            PipelineStatus::Running => prop_assert!(false, "nothing runs, and yet it is not over: {:?}", schedule),
        }
    }
}
