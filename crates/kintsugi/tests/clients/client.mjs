// What the JavaScript client does with a cluster: typed objects, informers, logs, exec. Prints `all good`.

import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const SPACE = 'javascript';
const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

// Typed objects, with their errors.
await core.createNamespace({ body: { metadata: { name: SPACE } } });
const made = await core.createNamespacedConfigMap({
  namespace: SPACE, body: { metadata: { generateName: 'c-' }, data: { a: '1' } } });
assert.match(made.metadata.name, /^c-.{5}$/);
const patched = await core.patchNamespacedConfigMap(
  { namespace: SPACE, name: made.metadata.name, body: [{ op: 'add', path: '/data/b', value: '2' }] },
  k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.JsonPatch));
assert.deepEqual({ ...patched.data }, { a: '1', b: '2' });
await assert.rejects(core.readNamespacedConfigMap({ namespace: SPACE, name: 'none' }), { code: 404 });

// A Deployment until it is ready, seen by an informer.
const container = {
  name: 'web', image: 'kintsugi.dev/demo/web:latest', imagePullPolicy: 'Never', args: ['8080'],
  readinessProbe: { httpGet: { path: '/readyz', port: 8080 }, periodSeconds: 1 } };
const list = () => apps.listNamespacedDeployment({ namespace: SPACE });
const informer = k8s.makeInformer(config, `/apis/apps/v1/namespaces/${SPACE}/deployments`, list);
const ready = new Promise((resolve, reject) => {
  const look = (deployment) => deployment.status?.readyReplicas === 2 && resolve();
  informer.on('add', look);
  informer.on('update', look);
  informer.on('error', reject);
});
await informer.start();
await apps.createNamespacedDeployment({ namespace: SPACE, body: {
  metadata: { name: 'web' },
  spec: { replicas: 2, selector: { matchLabels: { app: 'web' } },
    template: { metadata: { labels: { app: 'web' } }, spec: { containers: [container] } } } } });
await ready;
await informer.stop();
const pods = await core.listNamespacedPod({ namespace: SPACE, labelSelector: 'app=web' });
const pod = pods.items[0].metadata.name;

// Bytes: what it says, and a command in it.
assert.match(await core.readNamespacedPodLog({ namespace: SPACE, name: pod }), /8080/);
let said = '';
const out = new Writable({ write: (bytes, _, done) => { said += bytes; done(); } });
const status = await new Promise((resolve, reject) => {
  const command = ['/kintsugi', 'tool', 'echo', 'hello'];
  new k8s.Exec(config).exec(SPACE, pod, 'web', command, out, process.stderr, null, false, resolve).catch(reject);
});
assert.deepEqual([status.status, said.trim()], ['Success', 'hello']);

// Any object, by its kind alone.
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const applied = await objects.patch(
  { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's', namespace: SPACE }, stringData: { key: 'value' } },
  undefined, undefined, 'javascript', true, k8s.PatchStrategy.ServerSideApply);
assert.equal(applied.data.key, 'dmFsdWU=');
await core.deleteNamespace({ name: SPACE });
console.log('all good');
