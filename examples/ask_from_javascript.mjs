// The official JavaScript client against `cerebras-gpt serve`, unmodified: every endpoint once.
//
//     npm install openai
//     node examples/ask_from_javascript.mjs http://127.0.0.1:8000
//
// Ends with exit code 1 if a stream is not the whole answer, or if a wrong parameter is not refused by its name.

import OpenAI from "openai";

const address = process.argv[2] ?? "http://127.0.0.1:8000";
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });

const [{ id: model }] = (await client.models.list()).data;
console.log(`model: ${model}`);

const asked = { model, prompt: "The people", max_tokens: 24, temperature: 0.8, seed: 1 };
const whole = await client.completions.create({ ...asked, logprobs: 1 });
console.log(`completion: ${JSON.stringify(whole.choices[0].text)}`);

let text = "";
for await (const part of await client.completions.create({ ...asked, stream: true })) {
  text += part.choices[0]?.text ?? "";
}
if (text !== whole.choices[0].text) throw new Error(`the stream said ${JSON.stringify(text)}`);

const messages = [{ role: "user", content: "Hello!" }];
const chat = await client.chat.completions.create({ model, messages, max_tokens: 24, seed: 1 });
let spoken = "";
for await (const part of await client.chat.completions.create({ model, messages, max_tokens: 24, seed: 1, stream: true })) {
  spoken += part.choices[0]?.delta?.content ?? "";
}
console.log(`chat: ${JSON.stringify(spoken)}`);
if (spoken !== chat.choices[0].message.content) throw new Error("the streamed chat is another");

const vectors = await client.embeddings.create({ model, input: ["a cat", "a dog"] });
console.log(`embeddings: ${vectors.data.length} of ${vectors.data[0].embedding.length} numbers`);

try {
  await client.completions.create({ ...asked, max_tokens: -1 });
  throw new Error("a negative max_tokens was taken");
} catch (error) {
  if (!(error instanceof OpenAI.BadRequestError) || error.param !== "max_tokens") throw error;
  console.log(`refused: ${error.message}`);
}
