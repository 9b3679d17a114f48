// Saves an app as an image and waits for it, by NATS and JSON: node save.mjs CREDENTIALS APP IMAGE

import { setTimeout as sleep } from "node:timers/promises";

import { Hub, uuid7 } from "./calque.mjs";

const ENDED = ["succeeded", "failed", "cancelled"];

async function main(credentials, app, image) {
  const hub = await Hub.connect(credentials);
  try {
    const { apps = [] } = await hub.ask("calque.qry.apps", "query.apps", { name: app });
    if (apps.length === 0) throw new Error(`there is no app ${app}`);
    const made = uuid7(); // ids of what is made are ours to make
    const data = { image: made, name: image, tags: [], comment: "by NATS and JSON, in Node" };
    const answer = await hub.command("instance", "save", apps[0].id, data, uuid7());
    const operation = answer.operation ?? answer.command;
    for (;;) {
      const { operations = [] } = await hub.ask("calque.qry.operations", "query.operations", { id: operation });
      const view = operations[0];
      if (view && ENDED.includes(view.state)) {
        if (view.state !== "succeeded") throw new Error(`the save ${view.state}: ${JSON.stringify(view.problem)}`);
        console.log(made);
        return;
      }
      await sleep(200);
    }
  } finally {
    await hub.connection.close();
  }
}

main(...process.argv.slice(2, 5)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
