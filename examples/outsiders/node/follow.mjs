// Prints each saved image once, by NATS and JSON: node follow.mjs CREDENTIALS FILE [COUNT]
// The place in the record is kept by the hub; FILE holds the ids of events that were printed. Without COUNT, for ever.

import { appendFile, readFile } from "node:fs/promises";

import { Hub, JETSTREAM } from "./calque.mjs";

async function main(credentials, file, count = "0") {
  const seen = new Set((await readFile(file, "utf8").catch(() => "")).split("\n"));
  let left = Number(count);
  const hub = await Hub.connect(credentials);
  try {
    const wanted = { name: "saved-node", start: "first", types: ["image.saved"] };
    const opened = await hub.ask(`calque.act.${hub.principal}.subscribe`, "act.subscribe", wanted);
    const place = opened.subscription;
    const jetstream = hub.connection.jetstream({ apiPrefix: JETSTREAM });
    const consumer = await jetstream.consumers.get(place.stream, place.consumer);
    const events = await consumer.consume({ max_messages: 50, expires: 5000 });
    for await (const message of events) {
      const event = message.json();
      if (!seen.has(event.id)) {
        const [, , site, , image] = message.subject.split(".");
        console.log(image, site);
        seen.add(event.id);
        await appendFile(file, `${event.id}\n`);
        left -= 1;
      }
      message.ack(); // after its effect: until then it comes again
      if (left === 0) break;
    }
    await hub.connection.flush();
  } finally {
    await hub.connection.close();
  }
}

main(...process.argv.slice(2, 5)).catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
