// Classifies an image of zeros and prints its class and the time; put a camera's pixels in its
// place.

#include <bnn.h>

static uint8_t image[BNN_IMAGE_BYTES];
static uint64_t scratch[(BNN_SCRATCH_BYTES + 7) / 8];  // aligned for any word
static bnn_score_t scores[BNN_CLASSES];

void setup() {
  Serial.begin(115200);
}

void loop() {
  unsigned long begun = micros();
  int found = bnn_predict(image, scores, scratch);
  unsigned long ended = micros();
  Serial.print(bnn_class_names[found]);
  Serial.print(": ");
  Serial.print(ended - begun);
  Serial.println(" us");
  delay(1000);
}
