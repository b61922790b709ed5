use super::*;

#[test]
fn the_choice_is_explained_in_a_line() {
    let choice =
        Choice { acceleration: Acceleration::Tcg, reason: "/dev/kvm does not exist".into(), cached: true };
    insta::assert_snapshot!(choice.explain(), @"guests run emulated (TCG): /dev/kvm does not exist (found earlier)");
    let choice = Choice {
        acceleration: Acceleration::Kvm,
        reason: "a guest booted with KVM in 0.4 seconds".into(),
        cached: false,
    };
    insta::assert_snapshot!(choice.explain(), @"guests run with KVM: a guest booted with KVM in 0.4 seconds");
}

#[tokio::test]
async fn emulation_on_demand_needs_no_probe() {
    let nowhere = Path::new("/nonexistent");
    let root = tempfile::tempdir().unwrap();
    let probe = Probe {
        qemu: Some(nowhere),
        kernel: nowhere,
        initrd: nowhere,
        digest: "",
        cache: nowhere,
        run_dir: &RunDir::create(root.path()).unwrap(),
        isolation: &Isolation::default(),
        helper: None,
        limit: PROBE_LIMIT,
    };
    let greet: &Greet = &|_| Box::pin(async { Ok(()) });
    let choice = choose(Accel::Tcg, &probe, greet).await.unwrap();
    assert_eq!(choice.acceleration, Acceleration::Tcg);
}
