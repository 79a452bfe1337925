"use strict";
const $ = (id) => document.getElementById(id);

/* The key is kept for this tab only, so that the two pages ask for it once. */
function headers() {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function useKey(begin) {
  $("key").value = sessionStorage.getItem("key") || "";
  $("key").addEventListener("change", () => { sessionStorage.setItem("key", $("key").value); begin(); });
  begin();
}
