/* Runs all layers but the output layer; returns the bits that it multiplies. */
static const word *hidden(const uint8_t *image, word *scratch)
{
/*{calls}*/
}

void bnn_sums(const uint8_t *image, int32_t *sums, void *scratch)
{
    const word *in = hidden(image, (word *)scratch);
    unsigned n;
    for (n = 0; n < BNN_CLASSES; n++) {
        sums[n] = output_sum(in, n, OUTPUT_INPUTS, OUTPUT_ROW);
    }
}

int bnn_predict(const uint8_t *image, bnn_score_t *scores, void *scratch)
{
    const word *in = hidden(image, (word *)scratch);
    bnn_score_t largest = 0;
    unsigned n, best = 0;
    for (n = 0; n < BNN_CLASSES; n++) {
        int32_t sum = output_sum(in, n, OUTPUT_INPUTS, OUTPUT_ROW);
#ifdef BNN_DOUBLE_SCORES
        bnn_score_t score = (/*{value}*/ - score_mean[n]) * score_scale[n];
        score = score + score_shift[n];
#else
        bnn_score_t score = READ_SCORE(score_scale + n) * sum;
        score = score + READ_SCORE(score_shift + n);
#endif
        if (n == 0 || score > largest) {
            largest = score;
            best = n;
        }
        if (scores) {
            scores[n] = score;
        }
    }
    return (int)best;
}
