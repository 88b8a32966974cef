// Passkeys: asks the browser, sends the answer.  All checks are the server's.
"use strict";

const csrf = document.querySelector("meta[name=csrf]").content;

function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  said.hidden = text === "";
}

function bytes(text) {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (each) => each.charCodeAt(0));
}

function text(buffer) {
  const plain = String.fromCharCode(...new Uint8Array(buffer));
  return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error([said.error, said.remedy].filter(Boolean).join(" "));
  return said;
}

async function enrol() {
  const options = await post("/passkeys/options", {});
  options.challenge = bytes(options.challenge);
  options.user.id = bytes(options.user.id);
  for (const each of options.excludeCredentials || []) each.id = bytes(each.id);
  const made = await navigator.credentials.create({ publicKey: options });
  return post("/passkeys/enrol", {
    credential: {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
      },
    },
  });
}

async function assertion(path, body) {
  const options = await post(path, body);
  options.challenge = bytes(options.challenge);
  delete options.allowCredentials;
  const shown = await navigator.credentials.get({ publicKey: options });
  const response = shown.response;
  return {
    id: shown.id,
    rawId: text(shown.rawId),
    type: shown.type,
    response: {
      clientDataJSON: text(response.clientDataJSON),
      authenticatorData: text(response.authenticatorData),
      signature: text(response.signature),
      userHandle: response.userHandle ? text(response.userHandle) : null,
    },
  };
}

async function signIn(next) {
  const credential = await assertion("/sign-in/options", {});
  return post("/sign-in/passkey", { next, credential });
}

async function answer(data) {
  const seen = data.seen;
  const reason = document.getElementById("reason").value;
  const credential = await assertion(`${data.path}/options`, { seen });
  return post(`${data.path}/passkey`, { seen, reason, credential });
}

function on(id, act) {
  const button = document.getElementById(id);
  if (!button) return;
  button.addEventListener("click", async () => {
    say("");
    button.disabled = true;
    try {
      location.assign((await act(button)).next);
    } catch (error) {
      const gaveUp = error.name === "NotAllowedError";
      say(gaveUp ? "Nothing was used: the passkey was not confirmed, or there is none here." : error.message);
    } finally {
      button.disabled = false;
    }
  });
}

on("enrol", enrol);
on("sign-in", (button) => signIn(button.dataset.next));
on("answer", (button) => answer(button.dataset));
