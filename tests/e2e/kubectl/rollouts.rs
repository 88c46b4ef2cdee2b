//! Commands whose effect controllers carry out: scale, rollout, expose, autoscale.

use tests::{Cluster, eventually};

use super::Kubectl;
use crate::Shared;

pub const TESTS: &[Shared] = &[
    ("kubectl::rolls_a_deployment_out_and_back", rolls_a_deployment_out_and_back),
    ("kubectl::rolls_daemon_and_stateful_sets_out", rolls_daemon_and_stateful_sets_out),
];

fn rolls_a_deployment_out_and_back(c: &Cluster) {
    let k = Kubectl::new(c, "k-rolled");
    let image = || k.path("deployment web", "{.spec.template.spec.containers[0].image}");
    let sets = || k.run("get replicasets -o name").ok().lines().count();
    k.run("create deployment web --image=nginx:live").prints("deployment.apps/web created\n");
    k.run("annotate deployment web kubernetes.io/change-cause=begun").ok();
    k.run("rollout status deployment web --timeout=60s").contains("deployment \"web\" successfully rolled out");
    let refused = k.run("scale deployment web --replicas=3 --current-replicas=2").fails();
    assert!(refused.contains("Expected replicas to be 2, was 1"), "{refused}");
    k.run("scale deployment web --replicas=2 --current-replicas=1 --timeout=60s").prints("deployment.apps/web scaled\n");
    k.run("rollout status deployment web --timeout=60s").ok();
    assert_eq!(k.path("deployment web", "{.status.readyReplicas}"), "2");
    k.run("expose deployment web --port=80 --type=NodePort --name=front").prints("service/front exposed\n");
    k.becomes("endpointslices -l kubernetes.io/service-name=front", "{.items[*].endpoints[*].conditions.ready}", "true true");
    k.run("autoscale deployment web --name=auto --cpu=80% --min=2 --max=4").prints("horizontalpodautoscaler.autoscaling/auto autoscaled\n");
    assert_eq!(
        k.path(
            "hpa auto",
            "{.spec.scaleTargetRef.name} {.spec.minReplicas} {.spec.maxReplicas} {.spec.metrics[0].resource.target.averageUtilization}"
        ),
        "web 2 4 80"
    );
    k.run("delete hpa auto").ok();

    // Paused, nothing rolls.
    k.run("rollout pause deployment web").prints("deployment.apps/web paused\n");
    k.run("set image deployment web nginx=guestbook:v1").prints("deployment.apps/web image updated\n");
    k.run("annotate deployment web kubernetes.io/change-cause=changed --overwrite").ok();
    eventually("the controller has seen it", || {
        let seen = k.path("deployment web", "{.metadata.generation} {.status.observedGeneration}");
        if seen.split_once(' ').is_some_and(|(a, b)| a == b) { Ok(()) } else { Err(seen) }
    });
    assert_eq!(sets(), 1);
    let paused = k.run("rollout undo deployment web --to-revision=1").fails();
    assert!(paused.contains("you cannot rollback a paused deployment"), "{paused}");
    k.run("rollout resume deployment web").prints("deployment.apps/web resumed\n");
    k.run("rollout status deployment web --timeout=60s").contains("successfully rolled out");
    assert_eq!((sets(), image()), (2, "guestbook:v1".to_owned()));

    let history = k.run("rollout history deployment web").ok();
    assert!(history.contains("\n1         begun\n2         changed\n"), "{history}");
    k.run("rollout history deployment web --revision=1").contains("nginx:live");
    k.run("rollout undo deployment web --to-revision=1").prints("deployment.apps/web rolled back\n");
    k.run("rollout status deployment web --timeout=60s").ok();
    assert_eq!((sets(), image()), (2, "nginx:live".to_owned()));
    let history = k.run("rollout history deployment web").ok();
    assert!(history.contains("\n2         changed\n3         begun\n") && !history.contains("\n1 "), "{history}");
    k.run("rollout undo deployment web --to-revision=1").fails();

    let pods = || k.path("endpointslices -l kubernetes.io/service-name=front", "{.items[*].endpoints[?(@.conditions.ready==true)].targetRef.uid}");
    let before = pods();
    k.run("rollout restart deployment web").prints("deployment.apps/web restarted\n");
    k.run("rollout status deployment web --timeout=60s").ok();
    let after = pods();
    assert!(before.split(' ').all(|uid| !after.contains(uid)), "{before} then {after}");
    assert!(!k.path("deployment web", "{.spec.template.metadata.annotations.kubectl\\.kubernetes\\.io/restartedAt}").is_empty());
    // One that cannot succeed says so.
    k.run(r#"patch deployment web -p '{"spec":{"progressDeadlineSeconds":1}}'"#).ok();
    k.run("set image deployment web nginx=absent.example/none:1").ok();
    let stuck = k.run("rollout status deployment web --timeout=60s").fails();
    assert!(stuck.contains("exceeded its progress deadline"), "{stuck}");
    k.leave();
}

fn rolls_daemon_and_stateful_sets_out(c: &Cluster) {
    let k = Kubectl::new(c, "k-sets");
    let set = |kind: &str, name: &str, more: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: a, image: 'nginx:live'}}]}}\n---\n"
        )
    };
    k.pipe("create -f -", &(set("DaemonSet", "every", "minReadySeconds: 0") + &set("StatefulSet", "state", "serviceName: none"))).ok();
    // Both at once: each waits for its own pods.
    let both =
        [("daemonset/every", "successfully rolled out"), ("statefulset/state", "partitioned roll out complete: 1 new pods have been updated...")];
    let each = |line: &str, says: &str| both.iter().for_each(|(set, _)| drop(k.run(&line.replace("SET", set)).contains(says)));
    let done = || both.iter().for_each(|(set, done)| drop(k.run(&format!("rollout status {set} --timeout=60s")).contains(done)));
    let images = |image: &str| {
        ["every", "state"].iter().for_each(|app| k.becomes(&format!("pods -l app={app}"), "{.items[*].spec.containers[0].image}", image))
    };
    done();
    each("set image SET a=guestbook:v1", "image updated");
    done();
    images("guestbook:v1");
    each("rollout history SET", "\n2 ");
    each("rollout undo SET", "rolled back");
    done();
    images("nginx:live");
    each("rollout restart SET", "restarted");
    done();
    k.run("scale statefulset state --replicas=2").prints("statefulset.apps/state scaled\n");
    k.run("rollout status statefulset state --timeout=60s").ok();
    k.run("get pods -l app=state -o name").prints("pod/state-0\npod/state-1\n");
    k.leave();
}
