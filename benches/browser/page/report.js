/** Runs what is to be measured and sends the result, or what went wrong, to the server. */
export async function report(work) {
  let result;
  try {
    result = await work();
  } catch (error) {
    result = { error: `${error.name}: ${error.message}` };
  }
  await fetch("/result", { method: "POST", body: JSON.stringify(result) });
}
